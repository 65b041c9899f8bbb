"""Language consistency: what counts as a word, and as a word of the language."""

import collections
import itertools
import json
import random
import re
import time

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.rewards import Completion, Example, ExampleError, RewardMix, get, identify, language, language_consistency
from r1jax.rewards.language import language_metric

ZH = '先算乘法，再算加法'  # 8 characters
# One chain of thought in each language.
CHAINS = {
    'en': 'First we count the apples in both baskets. Then we subtract those that were eaten yesterday, because '
          'they are no longer there. The rest is shared among the children, so each of them gets half as many as '
          'we thought.',
    'de': 'Zuerst zählen wir die Äpfel in beiden Körben. Dann ziehen wir die ab, die gestern gegessen wurden, denn '
          'sie sind nicht mehr da. Der Rest wird unter den Kindern aufgeteilt, also bekommt jedes halb so viele '
          'wie gedacht.',
    'fr': "D'abord nous comptons les pommes dans les deux paniers. Ensuite nous retirons celles qui ont été "
          "mangées hier, car elles n'y sont plus. Le reste est partagé entre les enfants, donc chacun en reçoit la "
          "moitié de ce qu'on pensait.",
    'es': 'Primero contamos las manzanas de las dos cestas. Luego restamos las que se comieron ayer, porque ya no '
          'están. El resto se reparte entre los niños, así que cada uno recibe la mitad de lo que pensábamos.',
    'it': 'Prima contiamo le mele nei due cesti. Poi togliamo quelle che sono state mangiate ieri, perché non ci '
          'sono più. Il resto viene diviso tra i bambini, quindi ognuno ne riceve la metà di quanto pensavamo.',
    'pt': 'Primeiro contamos as maçãs nos dois cestos. Depois subtraímos as que foram comidas ontem, porque já não '
          'estão lá. O resto é dividido entre as crianças, então cada uma recebe metade do que pensávamos.',
    'nl': 'Eerst tellen we de appels in beide manden. Daarna trekken we de appels af die gisteren zijn opgegeten, '
          'want die zijn er niet meer. De rest wordt onder de kinderen verdeeld, dus ieder kind krijgt half zoveel '
          'als we dachten.',
    'sv': 'Först räknar vi äpplena i båda korgarna. Sedan drar vi bort dem som åts upp i går, eftersom de inte '
          'finns kvar. Resten delas mellan barnen, så var och en får hälften så många som vi trodde.',
    'da': 'Først tæller vi æblerne i begge kurve. Så trækker vi dem fra, der blev spist i går, fordi de ikke er '
          'der længere. Resten bliver delt mellem børnene, så hver af dem får halvt så mange, som vi havde regnet '
          'med.',
    'no': 'Først teller vi eplene i begge kurvene. Så trekker vi fra dem som ble spist i går, fordi de ikke er der '
          'lenger. Resten blir delt mellom barna, så hver av dem får halvparten så mange som vi hadde regnet med.',
    'pl': 'Najpierw liczymy jabłka w obu koszach. Potem odejmujemy te, które zostały zjedzone wczoraj, ponieważ '
          'już ich nie ma. Reszta jest dzielona między dzieci, więc każde z nich dostaje o połowę mniej, niż '
          'myśleliśmy.',
    'cs': 'Nejdřív spočítáme jablka v obou koších. Potom odečteme ta, která byla včera snědena, protože už tam '
          'nejsou. Zbytek se rozdělí mezi děti, takže každé z nich dostane polovinu toho, co jsme si mysleli.',
    'fi': 'Ensin laskemme omenat molemmista koreista. Sitten vähennämme ne, jotka syötiin eilen, koska niitä ei '
          'enää ole. Loput jaetaan lasten kesken, joten jokainen saa puolet siitä, mitä luulimme.',
    'hu': 'Először megszámoljuk az almákat mindkét kosárban. Aztán levonjuk azokat, amelyeket tegnap megettek, '
          'mert már nincsenek ott. A maradékot elosztjuk a gyerekek között, tehát mindegyik feleannyit kap, mint '
          'gondoltuk.',
    'ro': 'Mai întâi numărăm merele din ambele coșuri. Apoi le scădem pe cele care au fost mâncate ieri, pentru că '
          'nu mai sunt acolo. Restul se împarte între copii, deci fiecare primește jumătate din cât credeam.',
    'tr': 'Önce iki sepetteki elmaları sayıyoruz. Sonra dün yenen elmaları çıkarıyoruz, çünkü artık orada '
          'değiller. Kalanlar çocuklar arasında paylaştırılıyor, bu yüzden her biri düşündüğümüzün yarısını alıyor.',
    'vi': 'Đầu tiên chúng ta đếm số táo trong cả hai giỏ. Sau đó chúng ta trừ đi những quả đã ăn hôm qua, vì chúng '
          'không còn ở đó nữa. Phần còn lại được chia cho các em nhỏ, nên mỗi em nhận được một nửa so với chúng ta '
          'nghĩ.',
    'id': 'Pertama kita menghitung apel di kedua keranjang. Lalu kita mengurangi apel yang dimakan kemarin, karena '
          'apel itu sudah tidak ada. Sisanya dibagikan kepada anak-anak, jadi setiap anak mendapat setengah dari '
          'yang kita kira.',
    'sw': 'Kwanza tunahesabu matofaa katika vikapu vyote viwili. Kisha tunaondoa yale yaliyoliwa jana, kwa sababu '
          'hayapo tena. Yaliyobaki yanagawanywa kati ya watoto, kwa hiyo kila mmoja anapata nusu ya tulivyofikiri.',
    'ru': 'Сначала посчитаем яблоки в обеих корзинах. Потом вычтем те, которые съели вчера, потому что их больше '
          'нет. Остаток делят между детьми, поэтому каждый получает вдвое меньше, чем мы думали.',
    'uk': 'Спочатку порахуємо яблука в обох кошиках. Потім віднімемо ті, які з’їли вчора, бо їх уже немає. Решту '
          'ділять між дітьми, тому кожна дитина отримує вдвічі менше, ніж ми думали.',
    'bg': 'Първо броим ябълките в двете кошници. После изваждаме тези, които са били изядени вчера, защото вече ги '
          'няма. Останалите се разделят между децата, така че всяко получава наполовина по-малко, отколкото '
          'мислехме.',
    'ar': 'أولا نعد التفاح في السلتين. ثم نطرح التفاح الذي أكل أمس لأنه لم يعد موجودا. يقسم الباقي بين الأطفال، '
          'ولذلك يحصل كل واحد منهم على نصف ما كنا نظن.',
    'fa': 'اول سیب‌های هر دو سبد را می‌شماریم. بعد آنهایی را که دیروز خورده شده‌اند کم می‌کنیم، چون دیگر آنجا '
          'نیستند. بقیه بین بچه‌ها تقسیم می‌شود، پس هر کدام نصف آنچه فکر می‌کردیم می‌گیرد.',
    'ur': 'پہلے ہم دونوں ٹوکریوں میں سیب گنتے ہیں۔ پھر ہم وہ سیب نکال دیتے ہیں جو کل کھائے گئے تھے، کیونکہ وہ اب '
          'وہاں نہیں ہیں۔ باقی بچوں میں بانٹے جاتے ہیں، اس لیے ہر ایک کو اس سے آدھے ملتے ہیں جتنا ہم نے سوچا تھا۔',
    'hi': 'पहले हम दोनों टोकरियों में सेब गिनते हैं। फिर हम वे सेब घटाते हैं जो कल खाए गए थे, क्योंकि वे अब वहाँ '
          'नहीं हैं। बाकी सेब बच्चों में बाँटे जाते हैं, इसलिए हर एक को उससे आधे मिलते हैं जितना हमने सोचा था।',
    'mr': 'आधी आपण दोन्ही टोपल्यांमधील सफरचंदे मोजतो. मग काल खाल्लेली सफरचंदे वजा करतो, कारण ती आता तिथे नाहीत. '
          'उरलेली सफरचंदे मुलांमध्ये वाटली जातात, म्हणून प्रत्येकाला आपण विचार केला होता त्याच्या निम्मी मिळतात.',
    'zh': '首先我们数一数两个篮子里的苹果。然后减去昨天吃掉的那些，因为它们已经不在了。剩下的分给孩子们，所以每个人'
          '得到的只有我们原来想的一半。',
    'ja': 'まず二つの籠のリンゴを数える。次に昨日食べた分を引く。もう残っていないからだ。残りは子供たちに分けるので'
          '、一人がもらう数は考えていた数の半分になる。',
    'ko': '먼저 두 바구니에 있는 사과를 센다. 그다음 어제 먹은 사과를 뺀다. 이제 남아 있지 않기 때문이다. 나머지는 '
          '아이들에게 나누어 준다.',
    'th': 'ก่อนอื่นเรานับแอปเปิลในตะกร้าทั้งสองใบ แล้วลบลูกที่กินไปเมื่อวานออก ที่เหลือแบ่งให้เด็ก ๆ',
    'bn': 'প্রথমে আমরা দুটি ঝুড়ির আপেল গুনি। তারপর গতকাল যেগুলো খাওয়া হয়েছে সেগুলো বাদ দিই। বাকিগুলো শিশুদের '
          'মধ্যে ভাগ করা হয়।',
    'pa': 'ਪਹਿਲਾਂ ਅਸੀਂ ਦੋਵੇਂ ਟੋਕਰੀਆਂ ਦੇ ਸੇਬ ਗਿਣਦੇ ਹਾਂ। ਬਾਕੀ ਬੱਚਿਆਂ ਵਿੱਚ ਵੰਡੇ ਜਾਂਦੇ ਹਨ।',
    'gu': 'પહેલા આપણે બંને ટોપલીના સફરજન ગણીએ છીએ. બાકીના બાળકોમાં વહેંચવામાં આવે છે.',
    'ta': 'முதலில் இரண்டு கூடைகளிலும் உள்ள ஆப்பிள்களை எண்ணுகிறோம். மீதி குழந்தைகளுக்குப் பகிரப்படுகிறது.',
    'te': 'ముందుగా రెండు బుట్టల్లోని ఆపిల్ పండ్లను లెక్కిస్తాము. మిగిలినవి పిల్లలకు పంచుతారు.',
    'kn': 'ಮೊದಲು ಎರಡೂ ಬುಟ್ಟಿಗಳಲ್ಲಿರುವ ಸೇಬುಗಳನ್ನು ಎಣಿಸುತ್ತೇವೆ. ಉಳಿದವುಗಳನ್ನು ಮಕ್ಕಳಿಗೆ ಹಂಚಲಾಗುತ್ತದೆ.',
    'ml': 'ആദ്യം രണ്ടു കുട്ടകളിലുമുള്ള ആപ്പിളുകൾ എണ്ണുന്നു. ബാക്കിയുള്ളവ കുട്ടികൾക്ക് വീതിച്ചു കൊടുക്കുന്നു.',
    'he': 'קודם אנחנו סופרים את התפוחים בשני הסלים. אחר כך מחסירים את אלה שנאכלו אתמול. השאר מתחלק בין הילדים.',
    'hy': 'Նախ հաշվում ենք խնձորները երկու զամբյուղներում։ Մնացածը բաժանվում է երեխաների միջև։',
    'ka': 'ჯერ ვთვლით ვაშლებს ორივე კალათში. დანარჩენი ბავშვებს შორის ნაწილდება.',
    'el': 'Πρώτα μετράμε τα μήλα και στα δύο καλάθια. Τα υπόλοιπα μοιράζονται στα παιδιά.',
}
EN, ES = CHAINS['en'], CHAINS['es']
# All that holds words and is no prose.
LEFT_OUT = (
    '37+58=95.', '12 345 6.7', 'x = 3y + 4', 'f(x)=2*x', 'x, y', 'x>y', '$\\frac{a}{b} = mean$',
    '\\(mean + std\\)', '\\[ mean \\]',
    '$$ mean $$', '\\alpha \\text{mean}', '```python\nfor word in words: print(word)\n```', '`word`',
    '```\nimport numpy as np\nfrom os import path\n\nwhile not done and not failed:\n    total += step  # next\n```',
    '$\\text{total cost} = \\text{price}\\cdot\\text{count}$', '\\[\\begin{aligned} a &= b \\end{aligned}\\]',
    'def f(x): return x+7', '(B)', 'ann@example.com', 'www.example.com/path', 'https://example.com/a?b=word', '😀🎉', '→ ≤',
    '...!?', '，。！', 'π α', 'Δx', 'B', '2nd', 'a_b', 'path/to', '<b>', '٣٤', '१२', '１２', '\u200b\u202e', '&',
    '**', '5kg',
)


@pytest.mark.parametrize('text, language, share', [
    ('first we multiply, then we add', 'en', 1.0),
    (ZH, 'zh', 1.0),
    (ZH, 'en', 0.0),
    ('first we multiply', 'zh', 0.0),
    (ZH + ' then add', 'zh', 0.8),  # 8 characters and 2 words
    (ZH + ' then add', 'en', 0.2),
    ('まず掛け算をする', 'ja', 1.0),
    ('まず掛け算をする', 'zh', 2 / 8),
    ('먼저 곱하고 더한다', 'ko', 1.0),
    ('먼저 곱하고 then', 'ko', 2 / 3),
    ('сначала умножим и сложим', 'ru', 1.0),
    ('сначала multiply', 'ru', 0.5),
    ('نضرب أولا ثم نجمع', 'ar', 1.0),
    ('คูณก่อน', 'th', 1.0),
    ('पहले गुणा करें', 'hi', 1.0),
    ('पहले multiply करें', 'hi', 2 / 3),
    ('প্রথমে গুণ করি', 'bn', 1.0),
    ('ముందు గుణించండి', 'te', 1.0),
    ('first πολλά multiply', 'en', 2 / 3),  # another script is another language
    ('first አንድ multiply', 'en', 2 / 3),
    ('naïve café', 'en', 1.0),
    ('Tom和Ann一样高', 'zh', 4 / 6),  # names are counted as they are written
    ('**First** we *add*', 'en', 1.0),  # emphasis is no mathematics
    ('**Primero** 先', 'zh', 0.5),
])
def test_share(text, language, share):
    assert language_consistency(text, language) == pytest.approx(share)


@pytest.mark.parametrize('left_out', LEFT_OUT)
def test_left_out(left_out):
    assert language_consistency(f'{ZH} {left_out} {ZH}', 'zh') == 1.0
    assert language_consistency(f'first add {left_out} then stop', 'en') == 1.0
    assert language_consistency(f'{ZH} {left_out} then add', 'zh') == pytest.approx(0.8)


def test_prices_are_no_mathematics():
    assert language_consistency('一个 $5 then another $6', 'zh') == 0.5


def test_only_the_thought_counts():
    assert language_consistency(f'<think>{ZH}</think><answer>eighty one</answer>', 'zh') == 1.0
    assert language_consistency(f'<think>eighty one</think><answer>{ZH}</answer>', 'zh') == 0.0
    assert language_consistency(f'{ZH}</think>eighty one', 'zh') == 1.0  # the template wrote <think>
    assert language_consistency(f'<think>{ZH}', 'zh') == 1.0  # truncated


def test_an_empty_thought_earns_what_the_rest_does():
    for text in ('<think></think>', '</think>', '<think> \n... </think>'):
        assert language_consistency(f'{text}<answer>eighty one</answer>', 'zh') == 0.0
        assert language_consistency(f'{text}<answer>{ZH} then add</answer>', 'zh') == pytest.approx(0.8)
        for rest in ('', '81', '<answer></answer>', ' <answer> 81 </answer>', '`suma`'):
            assert language_consistency(text + rest, 'zh') == 0.0 and np.isnan(language_metric(text + rest, 'zh'))
    for text in ('', ' ', '...', '<think>', '😀'):
        assert language_consistency(text, 'en') == 0.0 and np.isnan(language_metric(text, 'en'))


def test_a_thought_of_equations_is_in_every_language_but_hidden_words_are_in_none():
    for text in ('37+58=95.', '<think> 25-3=22. 22+29=51. </think> <answer> 51 </answer>', ' x*9. x*9-9. ', '57 (C). ',
                 'def f(x): return x+7', '$37+58=95$', '\\[ \\frac{1}{2} \\]', '```\n3+4\n```'):
        assert language_consistency(text, 'zh') == language_consistency(text, 'fr') == language_metric(text, 'fr') == 1.0
    for text in (
            '```\nsuma los dos\n```', '$suma$', '\\(\\text{suma}\\)', '`suma`', '```python\nprint(3)\n```', '3+4=7 `算`'):
        assert language_consistency(text, 'zh') == language_consistency(text, 'es') == 0.0
        assert np.isnan(language_metric(text, 'zh'))


@pytest.mark.parametrize('quote', [
    '```\n{}\n```', '```python\n# {}\nx = 1\n```', '```python\n"""{}"""\n```', '$\\text{{{}}}$', '\\[ {} \\]', '`{}`',
    '\\text{{{}}}',
])
@pytest.mark.parametrize('hidden, target, words', [
    (ES, 'en', 'we add and then we stop'), (EN, 'zh', ZH), (CHAINS['zh'], 'en', EN[:60]), (CHAINS['ja'], 'en', EN[:60])])
def test_prose_is_not_hidden_by_code_or_latex(quote, hidden, target, words):
    plain = language_consistency(f'{words} {hidden}', target)
    assert language_consistency(f'{words} ' + quote.format(hidden), target) == pytest.approx(plain, abs=0.1)
    assert plain < 0.4


def test_prose_in_pieces_is_not_hidden():
    pieces = re.findall(r'(?:\S+ ){1,3}', ES)
    latex = '$' + ' + '.join(f'\\text{{{part}}}' for part in pieces) + '$'
    assert language_consistency(f'we add and then we stop {latex}', 'en') < 0.2
    lines = '```python\n' + '\n'.join(f'# {part}' for part in pieces) + '\n```'
    assert language_consistency(f'we add and then we stop {lines}', 'en') < 0.2


def test_a_repeated_word_does_not_outweigh_the_rest():
    for spam in ('so ' * 500, 'so then ' * 250, '\n'.join(['So'] * 500)):
        assert language_consistency(f'{spam} ```\n{CHAINS["es"]}\n```', 'en') < 0.65
        assert language_consistency(f'{spam} {CHAINS["zh"]}', 'en') < 0.65
    assert language_consistency('so ' * 500, 'en') == 1.0
    long = ' '.join([EN] * 30)  # every word of it as often
    assert language_consistency(long, 'en') == 1.0 and language_consistency(long + ZH * 30, 'en') > 0.5


@pytest.mark.parametrize('text, language, share', [
    ('we аdd the numbеrs', 'en', 1 / 2),  # a Cyrillic а and е
    ('we αdd nοw so', 'en', 1 / 2),  # a Greek α and ο
    ('сложим числa вместе', 'ru', 2 / 3),  # a Latin a
    ('тhе nuмbеr', 'ru', 0.0),
])
def test_letters_that_look_alike(text, language, share):
    assert language_consistency(text, language, ('en', 'ru')) == pytest.approx(share)


def test_whatever_has_no_width_or_twice_the_width_changes_nothing():
    text = 'first we multiply, then 先算乘法'
    share = language_consistency(text, 'en')
    assert 0 < share < 1
    for changed in (text.replace('first', 'fir\u200bst'), text.replace('then', '\u202bth\u00aden\u202c'), '\ufeff' + text,
                    text.replace('first', 'ｆｉｒｓｔ'), text.replace(' we', ' 🎉 we 😀')):
        assert language_consistency(changed, 'en') == share
    assert language_consistency('می\u200cخواهم بدانم', 'fa') == 1.0  # a joiner within a Persian word
    assert language_consistency('cafe\u0301 nai\u0308ve 先', 'en') == pytest.approx(2 / 3)  # decomposed letters
    assert language_consistency('نضرب then أولا', 'ar') == pytest.approx(2 / 3)


def test_region_codes():
    assert language_consistency(ZH, 'zh-CN') == 1.0 and language_consistency('first', 'EN_us') == 1.0


@pytest.mark.parametrize('language', CHAINS)
def test_each_language_is_told_from_all_others(language):
    shares = {other: language_consistency(CHAINS[language], other) for other in CHAINS}
    assert shares.pop(language) == 1.0
    if language == 'ja':
        assert shares.pop('zh') < 0.35  # its kanji: Chinese is judged by script
    assert max(shares.values()) <= 0.1, shares


def test_every_language_has_a_chain():
    assert CHAINS.keys() == language._SCRIPTS.keys()


@pytest.mark.parametrize('other', [other for other in CHAINS if other != 'en'])
def test_a_chain_that_changes_its_language(other):
    units = [counted(CHAINS[one]) for one in ('en', other)]
    text = f'{EN} {CHAINS[other]}'
    assert language_consistency(text, 'en') == pytest.approx(units[0] / sum(units), abs=0.03)
    assert language_consistency(text, other) == pytest.approx(units[1] / sum(units), abs=0.03)


def test_japanese_and_chinese():
    assert language_consistency(CHAINS['ja'], 'zh', ('zh', 'ja')) == 0.0
    assert language_consistency(CHAINS['zh'], 'ja') == 0.0  # by default, too
    assert language_consistency('首先我們數一數兩個籃子裡的蘋果，然後減去昨天吃掉的那些，因為它們已經不在了。', 'ja') == 0.0
    text = CHAINS['zh'] + CHAINS['ja']
    assert language_consistency(text, 'ja') == pytest.approx(len(CHAINS['ja']) / len(text), abs=0.05)
    assert language_consistency('計算', 'ja') == 1.0  # too little to tell


def test_short_texts_are_in_the_language_that_was_asked_for():
    for text in ('Dan', 'sam dan kim', 'so 44', 'La Paz', 'Answer: 5', 'Tenisha ate 3', 'total cost'):
        for target in ('en', 'de', 'id', 'sw'):
            assert language_consistency(text, target) == 1.0
    # Names of a puzzle, over and over, are no Indonesian.
    assert language_consistency('sam dan dan sam sam dan dan kim kim jim jim dan dan ' * 5, 'en') == 1.0


def test_languages_that_are_named_are_the_ones_told_apart():
    assert language_consistency(ES, 'en') == 0.0
    assert language_consistency(ES, 'en', ('en', 'zh')) == 1.0
    assert language_consistency(ES, 'en', ('es', 'zh')) == 0.0
    assert language_consistency(ES, 'es', ('en', 'zh')) == 1.0  # the example's own is always among them
    for languages, paid in ((['en', 'zh'], 1.0), ('en,zh', 1.0), ('en, es', 0.0), ('', 0.0)):
        reward = get('language', languages=languages)
        assert reward([Completion(ES)], [Example('q', language='en')]).values.tolist() == [paid]


def test_script_needs_no_model(monkeypatch):
    def loaded():
        raise AssertionError('the model was loaded')

    monkeypatch.setattr(identify, 'load_model', loaded)
    for text in (ZH + ' then add 甲', CHAINS['ja'], EN):
        assert 0 <= language_consistency(text, 'zh') <= 1
        assert 0 <= language_consistency(text, 'en', ('en', 'zh')) <= 1
        assert 0 <= language_consistency(text, 'ko') <= 1
    assert language_consistency(ZH, 'en') == 0.0  # nothing to tell apart
    assert language_consistency(ZH, 'zh', ('zh', 'ja')) == 1.0  # without kana it is no Japanese
    with pytest.raises(AssertionError):
        language_consistency(EN, 'en')


@pytest.mark.parametrize('language, words', [
    ('xx', "no language 'xx'"), ('', 'no language'), ('jp', r"'jp'.*did you mean '\w+'"), ('english', "language 'english'")])
def test_unknown_languages(language, words):
    with pytest.raises(UserError, match=words):
        language_consistency('bonjour', language)
    with pytest.raises(UserError, match=words):
        get('language', languages=['en', language])
    assert np.isnan(language_metric('bonjour', language))


def test_metric_is_the_reward():
    assert language_metric(f'{ZH} then add', 'zh') == pytest.approx(0.8) and language_metric(ES, 'fr') == 0.0


def test_reward():
    reward = get('language')
    output = reward([Completion(ZH), Completion(ZH + ' then add'), Completion(ES)],
                    [Example('q', language='en'), Example('q', language='zh'), Example('q', language='es')])
    assert output.values.tolist() == pytest.approx([0.0, 0.8, 1.0])
    with pytest.raises(ExampleError, match="'p7'"):
        reward([Completion(ZH)], [Example('q', id='p7')])
    mix = RewardMix('language=0.5', options={'language': {'languages': ('en', 'es')}})
    assert mix([Completion(ES)], [Example('q', language='en')]).values.tolist() == [0.0]


@pytest.mark.parametrize('spam', [
    '`' * 30_000, '$' * 30_000, '\\(' * 15_000, 'a' * 60_000, '$a' * 15_000, '```' * 10_001, 'a-' * 30_000,
    '\\[' * 15_000, 'def f(' * 5_000, 'aб' * 30_000, 'aα' * 30_000, '```' + 'a' * 19_000 + '```',
    '```' + 'a ' * 9_000 + '```',
    '```' + 'ab-' * 6_000 + '```', '```' + '字 ' * 9_000 + '```', '```' + ('字' + ' ' * 50) * 300 + '```',
    '```' + 'a # ' * 4_900 + '```', '```' + 'a\n\n#' * 4_900 + '```', '$$' + '\\text{' * 300 + '$$', '*' * 30_000,
    "l'" * 20_000, '\u200b' * 50_000, 'ab' + ' ' * 50_000 + 'cd', 'a\n' * 30_000, 'www.' * 10_000,
])
def test_spam_is_fast(spam):
    start = time.process_time()
    language_consistency(spam, 'en')
    language_consistency(spam, 'zh')
    assert time.process_time() - start < 20


def test_time_grows_with_the_length():
    language_consistency(ES, 'en')  # loads the model
    times = []
    for times_as_long in (20, 200):
        text = f'{ES} {EN} ' * times_as_long
        start = time.process_time()
        language_consistency(text, 'en')
        times.append(time.process_time() - start)
    assert times[1] < 40 * times[0] + 0.5


@pytest.fixture(scope='module')
def problems(shared):
    """{language: 250 problems}, MGSM: translations of one another."""
    found = collections.defaultdict(list)
    for line in (shared / 'data/lang/mgsm.jsonl').open():
        row = json.loads(line)
        found[row['lang']].append(row['problem'])
    assert len(found) == 11 and all(len(texts) == 250 for texts in found.values())
    return dict(sorted(found.items()))


def test_real_texts_of_eleven_languages(problems):
    languages = tuple(problems)
    right, own = 0, collections.defaultdict(list)
    for true, texts in problems.items():
        for text in texts[::5]:
            shares = {one: language_consistency(text, one, languages) for one in languages}
            own[true].append(shares.pop(true))
            right += own[true][-1] >= 0.5 and own[true][-1] > max(shares.values())
    assert right / (11 * 50) >= 0.995
    assert min(np.mean(shares) for shares in own.values()) >= 0.99
    for true, texts in problems.items():  # and with all that are known
        assert np.mean([language_consistency(text, true) for text in texts[1::5]]) >= 0.98


def counted(text):
    return sum(1 for _ in language._UNIT.finditer(language._prose(text)[0]))


def sentences(text):
    return [part for part in re.split(r'(?<=[.?!।])\s+|(?<=[。？！])|\n', text) if counted(part)]


def runs(text, rng, low, high):
    """Cuts a text before every so many words."""
    starts = [unit.start() for unit in language._UNIT.finditer(text)]
    cuts = [0]
    while len(starts) > (step := rng.randint(low, high)):
        starts = starts[step:]
        cuts.append(starts[0])
    return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]


def switched(first, second, rng):
    """Returns a text of pieces of both lists, at a share drawn at random, and the share of the first's words in it."""
    share, out, counts, lists = rng.random(), [], [0, 0], [list(first), list(second)]
    while all(lists):
        which = rng.random() > share
        piece = lists[which].pop(0)
        counts[which] += counted(piece)
        out.append(piece)
    return ' '.join(out), counts[0] / max(1, sum(counts))


@pytest.mark.parametrize('low, high', [(0, 0), (3, 8)])
def test_code_switching(problems, low, high):
    """low 0: from sentence to sentence; else within them, every so many words."""
    languages, rng = tuple(problems), random.Random(0)
    quotes = ('$x = 3y$', '37+58=95', '```python\nprint(total)\n```', '`count`', '\\frac{1}{2}')
    for a, b in itertools.combinations(languages, 2):
        errors = []
        for _ in range(8):
            texts = [' '.join(rng.sample(problems[one], 1 if low else 2)) for one in (a, b)]
            text, share = switched(*(runs(text, rng, low, high) if low else sentences(text) for text in texts), rng)
            found = language_consistency(text, a, languages)
            errors.append(abs(found - share))
            errors.append(abs(language_consistency(text, b, languages) - (1 - share)))
            pieces = text.split(' ')
            for quote in quotes:
                pieces.insert(rng.randrange(len(pieces)), quote)
            assert abs(language_consistency(' '.join(pieces), a, languages) - found) <= 0.02
        assert np.mean(errors) <= 0.05, (a, b)


def test_english_mathematics_is_english(shared):
    for file, field in (('math/gsm8k_test.jsonl', 'solution'), ('mcq/aqua_rat.jsonl', 'rationale')):
        for line in (shared / 'data' / file).open():
            text = json.loads(line)[field]
            assert language_consistency(text, 'en') == language_consistency(text, 'en', ('en',)), text
