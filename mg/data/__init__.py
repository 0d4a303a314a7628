SPLITS = ("train", "valid", "test")  # of every data set
MOST_CLASSES = 2**16  # labels are stored in 16 bits
