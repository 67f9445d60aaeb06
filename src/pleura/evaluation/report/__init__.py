"""The report and the model card: one document of numbers, and how it is drawn."""
