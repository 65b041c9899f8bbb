"""Tokenizers: exact round trips, the raw libraries' ids, special tokens, and the SentencePiece trainer."""

import json
import subprocess
import sys

import pytest
import sentencepiece
import tokenizers as hf

from r1jax.data import tinyworld, tokenizers
from r1jax.errors import UserError

TEXTS = [
    'What is 12+30? Wait, let me check.',
    ' a leading space',
    '小明有12个苹果，吃了3个，还剩几个？',
    'mixed 中文 and English, 3.14',
    '🙂 👩‍🚀 é ñ ß €',
    'def f(x):\n    if x > 1:\n\t\treturn x**2  # two  spaces\n\n\nprint(f(3))\n',
    '<think> 7*8=56 </think> <answer>56</answer>',
    '1234567890',
    '   ',
    '',
]


@pytest.fixture(scope='module')
def documents():
    return [tinyworld.document_at(index) for index in range(1500)]


@pytest.fixture(scope='module')
def tiny(documents, tmp_path_factory):
    path = tmp_path_factory.mktemp('spm') / 'tokenizer.model'
    return tokenizers.train_sentencepiece(documents, path, 768, tinyworld.SYMBOLS)


# --- training -----------------------------------------------------------------------------------------------


def test_training_gives_the_promised_ids(tiny):
    raw = tiny._start
    assert (raw.unk_id(), tiny.bos_id, tiny.eos_id, tiny.pad_id, tiny.vocab_size) == (0, 1, 2, 3, 768)
    symbols = [symbol.replace(' ', '\u2581') for symbol in tinyworld.SYMBOLS]
    assert [raw.id_to_piece(i) for i in range(4, 5 + len(symbols))] == ['\n', *symbols]


def test_a_symbol_of_the_tiny_world_is_one_token_whatever_stands_beside_it(tiny):
    for symbol in tinyworld.SYMBOLS:
        (token,) = tiny.encode(symbol)
        for before, after in (('阿', '说谎'), ('tom is', '.'), ('5', '5')):
            assert token in tiny.encode(before + symbol + after)


def test_every_tiny_world_text_comes_back_exactly(tiny, documents):
    fresh = [tinyworld.document_at(index, recipe='plain') for index in range(500)]
    for text in [*documents, *fresh, *TEXTS, 'an unseen word: Ξyzzy']:
        ids = tiny.encode(text)
        assert tiny.decode(ids) == text
        assert 0 not in ids  # nothing is unknown: what has no piece is spelt in bytes


def test_digits_tags_and_newlines_are_tokens_of_their_own(tiny, documents):
    for text in documents[:300]:
        ids = tiny.encode(text)
        assert not any(map(tiny._start.is_byte, ids))
        for piece in map(tiny._start.id_to_piece, ids):
            assert len(piece) == 1 or not any(c.isdigit() or c == '\n' for c in piece), piece
            assert len(piece) == 1 or '<' not in piece or piece.replace('\u2581', ' ') in tinyworld.SYMBOLS, piece


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_a_prompt_then_its_response_is_the_whole_text(tiny, language):
    responses = [
        ' <think> 3+4=7. </think> <answer>7</answer>', ' 7', '  two', ' 等等，7。', ' def f(x): return x']
    for family in tinyworld.FAMILIES:
        for index in range(30):
            problem = tinyworld.problem_at(family, 'train', index, language=language)
            prompt = tinyworld.prompt(problem.question)
            for response in responses:
                assert tiny.encode(prompt) + tiny.encode(response) == tiny.encode(prompt + response)
                assert tiny.encode(response, continues=True) == tiny.encode(response)


def test_training_gives_the_same_file_in_another_process(tiny, documents, tmp_path):
    program = (
        'import sys; from r1jax.data import tinyworld, tokenizers\n'
        'documents = (tinyworld.document_at(index) for index in range(1500))\n'
        'tokenizers.train_sentencepiece(documents, sys.argv[1], 768, tinyworld.SYMBOLS)')
    subprocess.run([sys.executable, '-c', program, str(tmp_path / 'again.model')], check=True)
    assert (tmp_path / 'again.model').read_bytes() == tiny._path.read_bytes()


def test_other_symbols_can_be_asked_for(documents, tmp_path):
    symbols = (*tokenizers.KEPT_TAGS, '<summary>')
    tokenizer = tokenizers.train_sentencepiece(documents, tmp_path / 't.model', 768, symbols)
    assert len(tokenizer.encode('<summary>')) == 1
    # A newline is always there, and in no learned piece.
    assert [i for i in range(768) if '\n' in tokenizer._start.id_to_piece(i)] == [4]
    assert tokenizer.decode(tokenizer.encode('a\nb')) == 'a\nb'


@pytest.mark.parametrize('texts, size', [([], 768), (['abc'], 768), (['abc def'], 50)])
def test_a_size_that_does_not_fit_the_documents_is_refused(texts, size, tmp_path):
    with pytest.raises(UserError, match=f'cannot train a tokenizer of {size} pieces: '):
        tokenizers.train_sentencepiece(texts, tmp_path / 't.model', size)
    assert not list(tmp_path.iterdir())


# --- special tokens -----------------------------------------------------------------------------------------


def test_decode_leaves_specials_out_and_keeps_tags(tiny):
    ids = [tiny.bos_id, *tiny.encode('<think> a </think>'), tiny.eos_id, tiny.pad_id, tiny.vocab_size + 7, -1]
    assert tiny.decode(ids) == '<think> a </think>'


def _byte_level(folder, **config):
    """A small byte-level BPE whose <think> is flagged as special."""
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=['<|bos|>', '<|eos|>', '<think>', '</think>'])
    tokenizer.train_from_iterator(['let me think about this again and again'], trainer)
    tokenizer.post_processor = hf.processors.TemplateProcessing(  # adds BOS, as that of Llama 3
        single='<|bos|> $A', special_tokens=[('<|bos|>', 0)])
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
    return folder


def test_hugging_face_specials_and_tags(tmp_path):
    folder = _byte_level(tmp_path, bos_token='<|bos|>', eos_token={'content': '<|eos|>'})
    tokenizer = tokenizers.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 1)
    ids = tokenizer.encode('<think> again</think>')
    assert ids[0] == 2 and tokenizer.decode([0, *ids, 1, 5000]) == '<think> again</think>'
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_eos_is_read_from_the_models_config_where_there_is_no_other(tmp_path):
    folder = _byte_level(tmp_path)
    with pytest.raises(UserError, match='neither an eos_token'):
        tokenizers.load(folder)
    (folder / 'config.json').write_text(json.dumps({'eos_token_id': [1, 0]}))
    tokenizer = tokenizers.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, 1, 1)
    tokenizer.save(tmp_path / 'saved')  # without config.json, so the ids must be written down elsewhere
    saved = tokenizers.load(tmp_path / 'saved')
    assert (saved.bos_id, saved.eos_id, saved.pad_id) == (None, 1, 1)


@pytest.mark.parametrize('said, bos_id', [({}, 0), ({'add_bos_token': True}, 0), ({'add_bos_token': False}, None)])
def test_a_bos_that_is_named_is_put_first_only_where_the_tokenizer_itself_does(tmp_path, said, bos_id):
    folder = _byte_level(tmp_path, bos_token=None, eos_token='<|eos|>', **said)
    (folder / 'config.json').write_text(json.dumps({'bos_token_id': 0}))  # Qwen2.5's way to name a token it never writes
    tokenizer = tokenizers.load(folder)
    tokenizer.save(tmp_path / 'saved')
    for same in (tokenizer, tokenizers.load(tmp_path / 'saved')):
        assert same.bos_id == bos_id and 0 in same.special_ids


def test_a_special_token_that_is_not_in_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"eos_token '</s>' .*not in the vocabulary"):
        tokenizers.load(_byte_level(tmp_path, eos_token='</s>'))


def test_a_response_gets_no_prefix_space_from_a_metaspace_tokenizer(tmp_path):
    tokenizer = hf.Tokenizer(hf.models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Metaspace(prepend_scheme='always')
    tokenizer.decoder = hf.decoders.Metaspace(prepend_scheme='always')
    tokenizer.train_from_iterator(
        ['answer: seven is the answer'], hf.trainers.BpeTrainer(special_tokens=['</s>'], show_progress=False))
    tokenizer.save(str(tmp_path / 'tokenizer.json'))
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'eos_token': '</s>'}))
    tokenizer = tokenizers.load(tmp_path)
    prompt, response = 'answer:', ' seven is'
    ids = tokenizer.encode(prompt) + tokenizer.encode(response, continues=True)
    assert ids == tokenizer.encode(prompt + response)
    assert tokenizer.decode(tokenizer.encode(response, continues=True), continues=True) == response
    assert tokenizer.decode(tokenizer.encode('seven')) == 'seven'


# --- files --------------------------------------------------------------------------------------------------


def test_save_and_load(tiny, tmp_path):
    tiny.save(tmp_path / 'a')
    copy = tokenizers.load(tmp_path / 'a')
    assert copy.kind == 'sentencepiece' and copy.encode('wait, 12') == tiny.encode('wait, 12')
    copy.save(tmp_path / 'a')  # onto itself
    assert tokenizers.load(tmp_path / 'a' / 'tokenizer.model').vocab_size == tiny.vocab_size


def test_what_is_not_a_tokenizer_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match='no such file or folder'):
        tokenizers.load(tmp_path / 'nothing')
    with pytest.raises(UserError, match='found: neither'):
        tokenizers.load(tmp_path)
    for content in (b'\x00\x01garbage', b'', b'{"version": 1}', b'{'):
        (tmp_path / 'bad.model').write_bytes(content)
        with pytest.raises(UserError, match='bad.model'):
            tokenizers.load(tmp_path / 'bad.model')
    tiny.save(tmp_path)
    with pytest.raises(UserError, match='found: bad.model, tokenizer.model'):
        tokenizers.load(tmp_path)


# --- real files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name, special, size', [
    ('deepseek_v3', (0, 1, 1), 128815), ('smollm2', (None, 2, 2), 49152)])
def test_real_byte_level_bpe(shared, name, special, size):
    tokenizer = tokenizers.load(shared / 'tokenizers' / name)
    assert tokenizer.kind == 'huggingface'
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (*special, size)
    raw = hf.Tokenizer.from_file(str(shared / 'tokenizers' / name / 'tokenizer.json'))
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == raw.encode(text, add_special_tokens=False).ids == tokenizer.encode(text, continues=True)
        bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        assert tokenizer.decode([*bos, *ids, tokenizer.eos_id]) == text


def test_real_sentencepiece(shared, tmp_path):
    folder = shared / 'tokenizers' / 'mistral_spm'
    tokenizer = tokenizers.load(folder)
    assert tokenizer.kind == 'sentencepiece'
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 2, 32000)
    raw = sentencepiece.SentencePieceProcessor(model_file=str(folder / 'tokenizer.model.v1'))
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == raw.encode(text)
        assert tokenizer.decode([1, *ids, 2]) == text
        # This model writes a space before every text; a response must not get a second one.
        both = tokenizer.encode('Answer:') + tokenizer.encode(' ' + text, continues=True)
        assert tokenizer.decode(both) == 'Answer: ' + text
    assert tokenizer.encode('Answer:') + tokenizer.encode(' 7', continues=True) == raw.encode('Answer: 7')
    tokenizer.save(tmp_path)
    assert tokenizers.load(tmp_path).encode('again') == raw.encode('again')
