"""Pictures that lead the drawing: ControlNets, and what is made of pictures for them."""
