"""Mean and covariance of one head's contributions: all that its components and TextSpan need from the images.

They merge exactly over chunks and shards, so memory does not grow with the number of images. All in float64.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass
class Reduced:
    """Contributions of one head in reduced coordinates: that of image i is basis @ q[i].

    q: [image, d_head + 3]; basis: B of the head, [d_embed, d_head + 3]
    """

    q: np.ndarray
    basis: np.ndarray

    def dense(self):
        """Contributions, [image, d_embed]."""
        return np.asarray(self.q) @ np.asarray(self.basis).T


@dataclass
class Moments:
    """Count, mean [coordinate] and covariance [coordinate, coordinate] (divided by count) of a head's rows.

    basis: [d_embed, coordinate], maps coordinates to the joint space; None where they are the same
    spacing: of the numbers that the rows were stored as, relative to their size (a type's eps), one or [coordinate]
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray
    basis: np.ndarray | None = None
    spacing: np.ndarray | float = 0.0

    @classmethod
    def from_data(cls, data):
        """Moments of Reduced contributions or of an array [image, d_embed]; Moments are returned as they are."""
        if isinstance(data, cls):
            return data
        rows, basis = (data.q, data.basis) if isinstance(data, Reduced) else (data, None)
        rows, basis = np.asarray(rows), None if basis is None else np.asarray(basis, np.float64)
        spacing = np.finfo(rows.dtype).eps if np.issubdtype(rows.dtype, np.floating) else 0.0
        mean = rows.mean(0, dtype=np.float64)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred / len(rows), basis, float(spacing))

    def merge(self, other):
        """Moments of both sets of rows (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        step = other.mean - self.mean
        share = other.count / count
        covariance = (1 - share) * self.covariance + share * other.covariance
        covariance += share * (1 - share) * np.outer(step, step)
        return replace(self, count=count, mean=self.mean + share * step, covariance=covariance)

    def about_origin(self):
        """The same Moments with the second moment about 0 in place of the covariance, and mean 0."""
        second = self.covariance + np.outer(self.mean, self.mean)
        return replace(self, mean=np.zeros_like(self.mean), covariance=second)

    def rounding(self):
        """Variance of the error of each coordinate by the rounding of the stored numbers, from above, [coordinate]."""
        half = np.finfo(np.float16)  # of whose small numbers the spacing is no longer relative
        least = np.where(np.equal(self.spacing, half.eps), float(half.smallest_subnormal), 0)
        squares = np.square(self.spacing) * (np.diagonal(self.covariance) + self.mean**2)
        return (squares + least**2) / 12

    def total_variance(self):
        """Sum of the variances of all dimensions of the joint space."""
        gram = np.eye(len(self.mean)) if self.basis is None else self.basis.T @ self.basis
        return float((self.covariance * gram).sum())

    def embedded_mean(self):
        """Mean contribution, [d_embed]."""
        return self.mean if self.basis is None else self.basis @ self.mean
