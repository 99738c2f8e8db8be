"""Every outside technology, one folder each."""
