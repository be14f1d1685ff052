"""ImageNet's channel means and standard deviations, of pixels in 0 to 1 (section 5.1)."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
