"""Networks of torchvision and timm, and the parts of any network: its head, what is frozen.

May import ``cli`` and ``config``. Start with ``library``.
"""
