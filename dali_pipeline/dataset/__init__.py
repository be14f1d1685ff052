"""What a data set holds: its index, the embedded digits, the images that cannot be read.

Of ``hvd_utils`` it may import ``cli`` and ``config``. Start with ``index`` and ``open_data``.
"""
