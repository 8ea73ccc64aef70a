"""The small networks of the tutorials, each a file; the large ones are torchvision's and transformers'."""
