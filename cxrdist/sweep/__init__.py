"""Many trials: a spec becomes cells, Ray Tune shares them out, a folder holds what is done."""
