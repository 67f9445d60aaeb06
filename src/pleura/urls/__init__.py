"""Files that are objects of a store, named by URLs such as `s3://bucket/key`; fsspec is imported for one alone.

The design:

* A `Place` is a `Path` or a `Url`. What reads and writes radiographs takes both; `place_of` decides which it is, at the
  command line. `file://` is a path. A URL with a password or a signature is refused, so that no table or log shows one.
* Inputs: listed once (1000 names a request) and sorted as a folder's files are. Of each the first 16 KiB tell whether
  it is a radiograph, and its id; OUT/inputs.jsonl keeps that with size and ETag, so that a later run reads no object
  again that has not changed. A radiograph to be predicted is then fetched whole, into memory: two GETs. Fetches run
  ahead, bounded in number and in bytes.
* Results: each object is one put, which is whole or not there. The journal and the tables are files of a local `Desk`.
  A store can append nothing: new lines of the journal go up as parts, OUT/.parts/journal.jsonl/N, every 10 s,
  and as one object at the end; a run begins by fetching both. A line goes up after the files that it is of, so that a
  run that is killed at any moment has lost at most lines, whose radiographs are predicted again, into the same objects.
* A dataset of `prepare` is made in a folder of this machine (`scratch`), where the same command goes on after a kill;
  it goes up when it is whole, its card last.
* The other verbs get paths of this machine: of datasets and models copies that stay (`kept`), of all else copies that
  do not (`copies`), and folders whose files go up at the end (`mirror`). A run of `train` goes up while it is trained
  (`followed`).
* One writer: OUT/.lock is created on condition that it is not there, and renewed every 10 s; who finds it waits for
  30 s to see whether it is. That is a lease and no lock: see `lease`.
"""
