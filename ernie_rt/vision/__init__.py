"""Pictures and videos on their way to a model: decoded within limits, resized by ERNIE's rule, cut into patches."""
