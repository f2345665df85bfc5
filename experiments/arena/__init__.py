"""Compare recipes of pretraining and ways of acting over data sets and seeds."""
