"""Text <-> token ids: SentencePiece models, Hugging Face `tokenizer.json` files, and training of the former.

Tokenising happens here and not inside seqio: DeepSeek, Qwen and Llama use byte-level BPE (`tokenizer.json`),
which seqio's vocabularies cannot read, and sampling must run where TensorFlow is not installed.

A tokenizer never adds special tokens: who builds a sequence puts BOS before the prompt and EOS after the
response, and keeps the mask beside the ids. `pad_id` is only a filler (it is often the EOS id), so no mask
may be derived from it.
"""

import abc
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from r1jax.errors import UserError

# Tags that the reward functions read: part of the text, even where a tokenizer file calls them special.
KEPT_TAGS = ('<think>', '</think>', '<answer>', '</answer>')
# What a Hugging Face folder may hold beside the tokenizer itself; copied along by `save`. The last one says which tokens end
# a response, often more than one of them.
_COMPANIONS = (
    'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'chat_template.jinja', 'generation_config.json')


class Tokenizer(abc.ABC):
    """What the rest of the library sees of a tokenizer; made by `load`.

    Attributes:
        kind: 'sentencepiece' or 'huggingface'.
        bos_id: id to put before a prompt, None where the model's own tokenizer puts none.
        eos_id: id that ends a response.
        pad_id: filler for fixed shapes; EOS where the file names no padding. Never infer a mask from it.
        vocab_size: largest id + 1. A model's embedding may have more rows; `decode` passes over those ids.
        special_ids: ids that are not text (BOS, EOS, padding, roles, ...); `decode` leaves them out.
    """

    kind: str
    bos_id: int | None
    eos_id: int
    pad_id: int
    vocab_size: int
    special_ids: frozenset[int]

    @abc.abstractmethod
    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Returns the ids of `text`, no BOS and no EOS.

        Args:
            text: any string.
            continues: the text goes on from tokens that are already there (a response after its prompt), so a
                model that writes a space before every text (Llama 2, Mistral) leaves it out. For all other
                models it changes nothing.
        """

    @abc.abstractmethod
    def decode(self, ids: Sequence[int], *, continues: bool = False) -> str:
        """Returns the text of `ids`, without special tokens and ids the vocabulary lacks; tags stay.

        Args:
            ids: token ids (Python or NumPy integers).
            continues: as in `encode`: True keeps the leading space of a response's first token.
        """

    @abc.abstractmethod
    def save(self, folder: str | pathlib.Path) -> None:
        """Copies the tokenizer's file and what stands beside it into `folder`, which `load` then reads."""

    def _text_ids(self, ids: Sequence[int]) -> list[int]:
        return [int(i) for i in ids if 0 <= i < self.vocab_size and int(i) not in self.special_ids]


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece `.model` file.

    SentencePiece writes U+2581 for a space, so a text that holds that character comes back with a space.
    """

    kind = 'sentencepiece'

    def __init__(self, path: pathlib.Path):
        self._path = path
        data = path.read_bytes()
        try:
            proto = sentencepiece_model_pb2.ModelProto.FromString(data)
            self._start = sentencepiece.SentencePieceProcessor(model_proto=data)
            proto.normalizer_spec.add_dummy_prefix = False
            self._continue = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        except Exception as error:  # protobuf and SentencePiece have one type for each way to be broken
            raise UserError(f'tokenizer {path}: not a SentencePiece model nor a tokenizer.json') from error
        if self._start.eos_id() < 0:
            raise UserError(f'tokenizer {path}: the SentencePiece model has no end-of-sequence piece')
        self.bos_id = self._start.bos_id() if self._start.bos_id() >= 0 else None
        self.eos_id = self._start.eos_id()
        self.pad_id = self._start.pad_id() if self._start.pad_id() >= 0 else self.eos_id
        self.vocab_size = self._start.get_piece_size()
        self.special_ids = frozenset(
                i for i in range(self.vocab_size)
                if self._start.is_control(i) and self._start.id_to_piece(i) not in KEPT_TAGS)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return (self._continue if continues else self._start).encode(text)

    def decode(self, ids: Sequence[int], *, continues: bool = False) -> str:
        return (self._continue if continues else self._start).decode(self._text_ids(ids))

    def save(self, folder: str | pathlib.Path) -> None:
        _copy_with_companions(self._path, pathlib.Path(folder), 'tokenizer.model')


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`; `tokenizer_config.json` (or `config.json`) beside it names BOS, EOS and padding."""

    kind = 'huggingface'

    def __init__(self, path: pathlib.Path):
        self._path = path
        try:
            spec = json.loads(path.read_text(encoding='utf-8'))
            continued = _without_prefix(spec)
            self._start = tokenizers.Tokenizer.from_str(json.dumps(spec))
            self._continue = (self._start if continued == spec else
                              tokenizers.Tokenizer.from_str(json.dumps(continued)))
        except Exception as error:  # the tokenizers package raises bare Exception
            raise UserError(f'tokenizer {path}: the tokenizers package cannot read it ({error})') from error
        config = _read_json(path.parent / 'tokenizer_config.json')
        model_config = _read_json(path.parent / 'config.json')

        def special(role: str) -> int | None:
            token = config.get(f'{role}_token')
            token = token.get('content') if isinstance(token, dict) else token
            if token is not None:
                token_id = self._start.token_to_id(token)
                if token_id is None:
                    raise UserError(f'tokenizer {path}: {role}_token {token!r} of tokenizer_config.json '
                                    'is not in the vocabulary')
                return token_id
            token_id = model_config.get(f'{role}_token_id')
            return token_id[0] if isinstance(token_id, list) else token_id

        eos_id = special('eos')
        if eos_id is None:
            raise UserError(f'tokenizer {path}: neither an eos_token in tokenizer_config.json nor an '
                            'eos_token_id in config.json beside it')
        self._named_pad = special('pad')
        self._named_bos = special('bos')
        # A named BOS need not stand before a prompt: Qwen2.5 has one in config.json and never writes it.
        adds = config.get('add_bos_token')
        if adds is None:
            adds = self._named_bos in self._start.encode('a', add_special_tokens=True).ids[:1]
        self.bos_id = self._named_bos if adds else None
        self.eos_id = eos_id
        self.pad_id = eos_id if self._named_pad is None else self._named_pad
        self.vocab_size = max(self._start.get_vocab(with_added_tokens=True).values()) + 1
        added = self._start.get_added_tokens_decoder().items()
        named = {i for i in (self._named_bos, self.eos_id, self.pad_id) if i is not None}
        self.special_ids = frozenset(
            named | {i for i, token in added if token.special and token.content not in KEPT_TAGS})

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return (self._continue if continues else self._start).encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, continues: bool = False) -> str:
        tokenizer = self._continue if continues else self._start
        return tokenizer.decode(self._text_ids(ids), skip_special_tokens=False)

    def save(self, folder: str | pathlib.Path) -> None:
        folder = pathlib.Path(folder)
        _copy_with_companions(self._path, folder, 'tokenizer.json')
        # They may have come from the model's config.json, which an export writes anew.
        roles = {'bos_token': self.bos_id, 'eos_token': self.eos_id, 'pad_token': self._named_pad}
        config = _read_json(folder / 'tokenizer_config.json')
        missing = {
            role: self._start.id_to_token(i) for role, i in roles.items() if i is not None and config.get(role) is None}
        if missing:
            text = json.dumps(config | missing, ensure_ascii=False, indent=2)
            (folder / 'tokenizer_config.json').write_text(text + '\n', encoding='utf-8')


def load(path: str | pathlib.Path) -> Tokenizer:
    """Reads a tokenizer.

    Args:
        path: a SentencePiece model, a `tokenizer.json`, or a folder that holds one of them (`tokenizer.json`
            goes first: it is the one that knows the tokens added after SentencePiece training).

    Raises:
        UserError: nothing there, or not a tokenizer.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        found = sorted(path.glob('tokenizer.json')) or sorted(path.glob('*.model*'))
        if len(found) != 1:
            names = ', '.join(p.name for p in found) or 'neither'
            raise UserError(
                f'tokenizer {path}: the folder must hold tokenizer.json or one *.model file (found: {names})')
        path = found[0]
    if not path.is_file():
        raise UserError(f'tokenizer {path}: no such file or folder')
    with path.open('rb') as file:
        is_json = file.read(64).lstrip().startswith(b'{')
    return HuggingFaceTokenizer(path) if is_json else SentencePieceTokenizer(path)


def train_sentencepiece(
        documents: Iterable[str],
        out_path: str | pathlib.Path,
        vocab_size: int,
        user_symbols: Sequence[str] = KEPT_TAGS,
) -> Tokenizer:
    """Trains a SentencePiece BPE whose `decode(encode(text))` is exactly `text`, and writes it to `out_path`.

    Ids: unk 0, bos 1, eos 2, pad 3, then the newline and `user_symbols` (always one token each), 256 bytes (so
    nothing is unknown), then learned pieces. Every digit is a token of its own. A piece holds a space only at its start,
    so the tokens of a prompt followed by those of a response that starts with a space are the tokens of the
    whole text. The same documents in the same order give the same file.

    Pieces are byte-pair merges: on tiny-world documents they need 5% (768 pieces) to 10% (1,024) fewer tokens
    than a unigram model, and train in a tenth of the time.

    Args:
        documents: training texts. They are split at newlines, which are in no learned piece.
        out_path: file to write, usually `tokenizer.model`.
        vocab_size: size of the whole vocabulary, with everything above.
        user_symbols: strings that are always one token; a space may stand at the start of one (' <think>').

    Raises:
        UserError: the documents hold too few or too many distinct characters and words for `vocab_size`.
    """
    out_path = pathlib.Path(out_path)
    lines = (line for document in documents for line in document.split('\n') if line)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines,
                model_writer=model,
                model_type='bpe',
                vocab_size=vocab_size,
                user_defined_symbols=['\n', *(symbol.replace(' ', '\u2581') for symbol in user_symbols)],
                unk_id=0, bos_id=1, eos_id=2, pad_id=3,
                byte_fallback=True,
                character_coverage=1.0,
                split_digits=True,
                normalization_rule_name='identity',
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                max_sentence_length=1 << 20,  # bytes; longer lines are left out silently
                input_sentence_size=0,  # all of them, no sampling
                shuffle_input_sentence=False,
                num_threads=1,
                minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).rsplit(']', 1)[-1].strip() or 'there is no text in the documents'
        raise UserError(f'cannot train a tokenizer of {vocab_size} pieces: {reason}') from error
    out_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = out_path.with_name(f'.{out_path.name}.tmp')
    temporary.write_bytes(model.getvalue())
    os.replace(temporary, out_path)  # a start that is killed here leaves no half of it for the next one
    return load(out_path)


def _copy_with_companions(path: pathlib.Path, folder: pathlib.Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _copy(path, folder / name)
    for companion in _COMPANIONS:
        if (path.parent / companion).exists():
            _copy(path.parent / companion, folder / companion)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)


def _read_json(path: pathlib.Path) -> dict:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path}: not valid JSON ({error})') from error


def _without_prefix(spec: dict) -> dict:
    """Returns a tokenizer.json that neither writes a space before a text nor takes it away when decoding."""

    def rewrite(step: dict | None, role: str) -> dict | None:
        if step is None or (role, step['type']) in (('normalizer', 'Prepend'), ('decoder', 'Strip')):
            return None
        step = dict(step)
        for key in ('normalizers', 'pretokenizers', 'decoders'):
            if key in step:
                kept = (rewrite(child, role) for child in step[key])
                step[key] = [child for child in kept if child is not None]
        if step['type'] == 'Metaspace':
            step['prepend_scheme'] = 'never'
            step.pop('add_prefix_space', None)  # the older spelling of the same switch
        elif step['type'] == 'ByteLevel' and role == 'pre_tokenizer':
            step['add_prefix_space'] = False
        return step

    return spec | {role: rewrite(spec.get(role), role) for role in ('normalizer', 'pre_tokenizer', 'decoder')}
