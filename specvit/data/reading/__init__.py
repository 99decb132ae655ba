"""Reading files of images, labels and shards."""
