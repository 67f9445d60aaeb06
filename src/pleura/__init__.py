"""pleura finds and outlines pneumothorax on frontal chest radiographs. Research software, not a medical device."""

__version__ = "0.1.0"
