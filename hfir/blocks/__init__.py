"""The network's parts, one family a file. Legend: b batch, c channels, h w pixels, e experts, k chosen."""
