SPLITS = ("train", "valid", "test")  # of every data set
