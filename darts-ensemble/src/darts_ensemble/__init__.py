"""Several segmentation models as one."""
