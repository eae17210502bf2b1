"""From the user's rows to a DatasetDir with fixed splits: builtin, files, sources, checks, splits, prepare, dataset."""
