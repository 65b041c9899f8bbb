"""Which of several languages that share a script each word of a text is in.

Byte n-grams are scored by py3langid's model (langid.py: Lui and Baldwin, ACL 2012, demonstrations), whose scores of a word
and its neighbours are the emissions of a hidden Markov model over words, as in King and Abney (Labeling the languages of
words in mixed-language documents, NAACL 2013). It is decoded by Viterbi's algorithm, so that what a word does not show
(names, words that languages share) is decided by its neighbours. All is linear in the length of the text.

The constants below were set on English mathematics and rollouts of the tiny world, where nothing else may be seen, and on
mixtures of half of MGSM's problems. Nats are those of py3langid's model, which overrates its evidence.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

# A change of language costs this, and the logarithm of the new language's share of the text.
SWITCH = 4.0
# A language that was not asked for has to weigh this much more than the presumed one, over different words: a few words of
# it. Names reach 34 (logic puzzles about Dan, Sam and Kim read as Indonesian), few sentences of seven words stay below 40.
EVIDENCE = 40.0
# Words to either side that are weighed with a word before it is asked which languages there are.
_NEIGHBOURS = 1
# A byte n-gram is evidence for the word that holds the byte so far before its end.
_LAG = 2


def identify(words: Sequence[str], languages: Sequence[str], *, spaced: bool = True) -> np.ndarray:
    """Returns, for each of n words, the index of its language in `languages`.

    Args:
        words: in their order; without spaces between words in the script (`spaced` False), its characters.
        languages: codes that py3langid has. The first one is presumed: texts are in it until `EVIDENCE` says otherwise.
    """
    n = len(words)
    if not n or len(languages) == 1:
        return np.zeros(n, int)
    scores = _scores(words, tuple(languages), ' ' if spaced else '')
    votes = _votes(scores)
    different = list({word: i for i, word in enumerate(map(str.lower, words))}.values())
    more = scores[different, votes[different]] - scores[different, 0]
    weights = np.bincount(votes[different], weights=more, minlength=len(languages))
    weights[0] = math.inf
    kept = np.flatnonzero(weights >= EVIDENCE)
    if len(kept) == 1:
        return np.zeros(n, int)
    scores = scores[:, kept]
    counts = np.bincount(_votes(scores), minlength=len(kept)) + 0.5
    return kept[_viterbi(scores.tolist(), (SWITCH - np.log(counts / counts.sum())).tolist())]


def _votes(scores: np.ndarray) -> np.ndarray:
    """Returns the best language of each word and its neighbours together."""
    n = len(scores)
    sums = np.zeros((n + 1, scores.shape[1]))
    np.cumsum(scores, axis=0, out=sums[1:])
    at = np.arange(n)
    return (sums[np.minimum(at + _NEIGHBOURS + 1, n)] - sums[np.maximum(at - _NEIGHBOURS, 0)]).argmax(1)


def _viterbi(scores: list[list[float]], costs: list[float]) -> list[int]:
    """Returns the best path; to go to language i from another one costs costs[i]. Few languages: lists are faster."""
    languages = range(len(costs))
    best, came_from = [-cost for cost in costs], []
    for emissions in scores:
        top = max(languages, key=best.__getitem__)
        jump = best[top]
        stays = [best[i] >= jump - costs[i] for i in languages]
        came_from.append([i if stays[i] else top for i in languages])
        best = [(best[i] if stays[i] else jump - costs[i]) + emissions[i] for i in languages]
    path = [max(languages, key=best.__getitem__)]
    for previous in came_from[:0:-1]:
        path.append(previous[path[-1]])
    return path[::-1]


def _scores(words: Sequence[str], languages: tuple[str, ...], space: str) -> np.ndarray:
    """Returns the log-probabilities of each word's n-grams in each language, float64 [n, languages]."""
    # Words in capitals have few n-grams in the model.
    encoded = [(word.lower() if word.isupper() else word).encode('utf-8', 'replace') + space.encode() for word in words]
    places, features = _features(space.encode() + b''.join(encoded))
    sums = np.zeros((len(features) + 1, len(languages)))
    # The table is float16, whose own sums lose everything after a few hundred words.
    np.cumsum(_table(languages)[features], axis=0, dtype=np.float64, out=sums[1:])
    ends = np.cumsum([len(word) for word in encoded]) + len(space)
    upto = np.searchsorted(np.array(places, int) - _LAG, ends)
    upto[-1] = len(features)
    return np.diff(sums[upto], axis=0, prepend=np.zeros((1, len(languages))))


def _features(data: bytes) -> tuple[list[int], list[int]]:
    """Returns the places where n-grams of the model end, and which they are: one walk of its automaton."""
    model, rows = load_model()
    following, found = model.tk_nextmove, model.tk_output
    state, places, features = 0, [], []
    for place, byte in enumerate(data):
        state = following[rows[state] + byte]
        feature = found[state]
        if feature >= 0:
            places.append(place)
            features.append(feature)
    return places, features


@functools.lru_cache(maxsize=32)
def _table(languages: tuple[str, ...]) -> np.ndarray:
    """Returns log P(n-gram | language), float16 [n-grams, languages]."""
    model, _ = load_model()
    return np.ascontiguousarray(model.nb_ptc[:, [model.nb_classes.index(language) for language in languages]])


@functools.cache
def load_model():
    """Loads py3langid's model, once a process and only when it is asked: that takes most of a second.

    Returns it, and where each state's row of its table of transitions begins.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    return model, [row << 8 for row in model.tk_row]
