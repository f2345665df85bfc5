"""All that acts with a pretrained model, and the files it is loaded from."""
