"""The layers of fastconv.nn, one file per family; fastconv.nn gives them their public names."""
