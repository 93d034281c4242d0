"""The network: a timm backbone, a hash layer and a classifier; loading, saving, inference."""
