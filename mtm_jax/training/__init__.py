"""Training programs: data sets on the device, objectives, optimisers, compiled steps."""
