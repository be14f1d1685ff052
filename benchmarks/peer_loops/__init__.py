"""How others train ImageNet on several processes: their loops, written afresh, to be measured."""
