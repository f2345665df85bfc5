"""robomimic's data sets: low-dimensional demonstrations in HDF5."""
