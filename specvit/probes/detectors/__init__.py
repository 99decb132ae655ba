"""What the detection probe is made of: boxes on a grid, targets, a head, its fit, its detections and their AP."""
