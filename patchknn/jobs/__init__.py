"""Work shared by many processes: claims on units, and running them."""
