"""What families of models differ in, one row and one file each."""
