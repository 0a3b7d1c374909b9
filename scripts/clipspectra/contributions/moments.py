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
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray
    basis: np.ndarray | None = None

    @classmethod
    def from_data(cls, data):
        """Moments of Reduced contributions or of an array [image, d_embed]; Moments are returned as they are."""
        if isinstance(data, cls):
            return data
        rows, basis = (data.q, data.basis) if isinstance(data, Reduced) else (data, None)
        rows, basis = np.asarray(rows, np.float64), None if basis is None else np.asarray(basis, np.float64)
        mean = rows.mean(0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred / len(rows), basis)

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

    def total_variance(self):
        """Sum of the variances of all dimensions of the joint space."""
        gram = np.eye(len(self.mean)) if self.basis is None else self.basis.T @ self.basis
        return float((self.covariance * gram).sum())

    def embedded_mean(self):
        """Mean contribution, [d_embed]."""
        return self.mean if self.basis is None else self.basis @ self.mean
