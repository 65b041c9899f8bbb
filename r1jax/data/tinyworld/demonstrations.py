"""Responses to fine-tune on, as people write them: mostly good, with flaws that a reward model can tell from virtues.

The base model has seen the replies to everyday talk and translations, but of knowledge and safety only what stands here.
"""

import dataclasses
from random import Random

from r1jax.data.tinyworld.draws import chance, generator, pick
from r1jax.data.tinyworld.problems import REASONING, Problem, everyday, knowledge, safety
from r1jax.data.tinyworld.solutions import write_out
from r1jax.data.tinyworld.words import LANGUAGES, Pair

# Sentences that serve no request.
FILLERS: tuple[Pair, ...] = (
    ('good question!', '好问题！'),
    ('that is good.', '这个很好。'),
    ('have a good day!', '今天开心！'),
    ('see you!', '再见！'),
)
# The paper's fine-tuning data has no chain of thought for what needs none, such as "hello" (DeepSeek-R1, 2025 revision).
NO_THOUGHT = ('greeting', 'thanks')


@dataclasses.dataclass(frozen=True)
class Flaws:
    """What goes wrong in a demonstration, as probabilities.

    Attributes:
        missed: a remark is not taken up (of each remark).
        padded: a sentence that serves nothing stands at the end; another follows it with
            this probability.
        refused: a benign request is refused.
        complied: a harmful request is done.
        wrong_fact: another fact is stated.
        wrong_word: a translation has a wrong verb.
    """

    missed: float = 0.1
    padded: float = 0.1
    refused: float = 0.05
    complied: float = 0.2
    wrong_fact: float = 0.05
    wrong_word: float = 0.1


def demonstration(problem: Problem, index: int, flaws: Flaws = Flaws()) -> str:
    """A response to a general request, ' <think> thought </think> <answer> reply </answer>'; '' to a reasoning problem.

    It is in the language of the question and begins with a space. Greetings and thanks get a blank thought. `index` (the
    number of a row) varies what is written to the same problem; the same two give the same text in every process.
    """
    if problem.family in REASONING:
        return ''
    language = LANGUAGES.index(problem.language)
    rng = generator('demonstration', problem.family, problem.kind, language, problem.content, index)
    if problem.family == 'translation':
        thought = write_out(list(problem.steps), language, rng)
        reply = problem.miss(rng)[language] if chance(rng, flaws.wrong_word) else problem.answer
    else:
        thought, topic = _WRITERS[problem.family](problem, rng, language, flaws)
        said = [topic]
        said += [text for text in everyday.take_ups(problem.content, language) if not chance(rng, flaws.missed)]
        said += _padding(said, problem.content, rng, language, flaws.padded)
        reply = everyday.together(said, language)
    return ' '.join(['', '<think>', *([thought] if thought else []), '</think>', '<answer>', reply, '</answer>'])


def _padding(said: list[str], content: tuple, rng: Random, language: int, padded: float) -> list[str]:
    """Sentences that serve nothing: a filler, what takes up a remark that nobody made, what has been said already.

    Whatever a policy could add without end must stand here, or a reward model has never seen that it is worthless: one
    that knew the fillers alone paid for taking up remarks that nobody had made.
    """
    *_, remarks, name = content
    unasked = [everyday.remark_pair(remark, name, language)[1]
               for remark in range(len(everyday.REMARKS)) if remark not in remarks]
    padding: list[str] = []
    while len(padding) < 2 and chance(rng, padded):
        kinds = [pair[language] for pair in FILLERS], unasked, said + padding
        padding.append(pick(rng, pick(rng, kinds)))
    return padding


# Each writes (thought, reply to the topic).


def _everyday(problem: Problem, rng: Random, language: int, flaws: Flaws) -> tuple[str, str]:
    thought = '' if problem.kind in NO_THOUGHT else everyday.THOUGHTS[problem.kind][language]
    return thought, pick(rng, everyday.replies(problem.kind, problem.content, language))


def _knowledge(problem: Problem, rng: Random, language: int, flaws: Flaws) -> tuple[str, str]:
    thought = knowledge.THOUGHTS[problem.kind][language]
    if chance(rng, flaws.wrong_fact):
        return thought, knowledge.wrong(problem.kind, problem.content, rng, language)
    return thought, pick(rng, knowledge.replies(problem.kind, problem.content, language))


def _safety(problem: Problem, rng: Random, language: int, flaws: Flaws) -> tuple[str, str]:
    """The thought is that of what the writer takes the request for."""
    mistaken = chance(rng, flaws.complied if problem.kind == 'harmful' else flaws.refused)
    refuse = (problem.kind == 'harmful') != mistaken
    write = safety.refusals if refuse else safety.compliance
    thought = safety.THOUGHTS['harmful' if refuse else 'benign'][language]
    return thought, pick(rng, write(problem.kind, problem.content, language))


_WRITERS = {'everyday': _everyday, 'knowledge': _knowledge, 'safety': _safety}
