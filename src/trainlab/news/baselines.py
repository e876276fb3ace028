"""What a trained network has to beat besides its own backbone: TF-IDF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlab.news.examples import Examples


def tfidf(examples: Examples, text: str) -> Any:
    """Return the unseen items' TF-IDF vectors, sparse [U, V] of length 1.

    The words' weights come from all news: they need no categories, so nothing is given away. Euclidean
    distance orders vectors of length 1 as the cosine does.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [" ".join(each) for each in examples.news.texts(text)]
    return TfidfVectorizer().fit_transform(texts).tocsr()[examples.unseen]
