"""The distribution that `ernie-rt backends new` renders, in `skeleton`, for a backend named yourchip."""
