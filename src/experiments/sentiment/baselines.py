"""What a fine-tuned network has to beat: words counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def tfidf(training: pd.DataFrame, texts: pd.Series) -> NDArray[Any]:
    """Return the probability [N] that each text is positive, by a logistic regression over TF-IDF.

    Its words and pairs of words come from the same training reviews as the network learns from.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    return model.fit(training["text"], training["label"]).predict_proba(texts)[:, 1]
