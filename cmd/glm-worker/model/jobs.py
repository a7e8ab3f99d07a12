"""Generated data-cleaning tasks with known answers.

One function per job makes (data, answer); WORDINGS holds the instructions; make() joins the two in one of several
layouts. Nothing is downloaded and everything follows the given random.Random, so a seed names a data set.

Held out. Two hashes keep training and test apart whatever the seeds: a prompt whose checksum falls in TEST_PROMPT is
never trained on, and neither is any prompt whose instruction falls in TEST_WORDING ("new wording").
"""
import json
import re
import zlib
from calendar import monthrange

from words import (ASIDE, BAD, BAD_FORM, BAD_SAY, BYE, COUNTRIES, CURRENCIES, DAYS, FALSE, GOOD, GOOD_FORM, GOOD_SAY, HELLO,
                   LANGUAGES, MONTHS, PRODUCTS, TICKETS, TRUE, UNITS)

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def spin(r, text):
    """Pick one choice from each [a|b|c]."""
    return _CHOICE.sub(lambda m: r.choice(m.group(1).split("|")), text)


def recase(r, s):
    """Upper or lower case now and then, as found in hand-kept tables."""
    x = r.random()
    return s.upper() if x < .12 else s.lower() if x < .28 else s


def decimal(n, places):
    """n / 10**places as plain text without trailing zeros: decimal(3500, 3) is 3.5."""
    s = str(n).rjust(places + 1, "0")
    if not places:
        return s
    return (s[:-places] + "." + s[-places:]).rstrip("0").rstrip(".")


# ---- the jobs: each returns (data, answer)

def date(r):
    y, m = r.randint(1950, 2039), r.randint(1, 12)
    last = monthrange(y, m)[1]
    d = r.randint(1, last)
    full = MONTHS[m - 1]
    mon = r.choice([full, full, full[:3], full[:3], full[:3].upper()])
    th = "th" if 4 <= d <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(d % 10, "th")
    f = r.randrange(13)
    if f < 7:
        return [f"{d} {mon} {y}", f"{mon} {d}, {y}", f"{d:02d}-{mon}-{y}", f"{mon} {d} {y}", f"{mon} {d}{th}, {y}",
                f"{d}{th} of {mon} {y}", f"{r.choice(DAYS)[:r.choice([3, 20])]}, {d} {mon} {y}"][f], f"{y}-{m:02d}-{d:02d}"
    if f < 11:
        return [f"{y}/{m:02d}/{d:02d}", f"{y}.{m:02d}.{d:02d}", f"{y}{m:02d}{d:02d}", f"{y}/{m}/{d}"][f - 7], f"{y}-{m:02d}-{d:02d}"
    d = r.randint(13, last)  # only the day can be above 12, so either order is unambiguous
    s = r.choice("/.-")
    return r.choice([f"{d}{s}{m:02d}{s}{y}", f"{d}{s}{m}{s}{y}", f"{m:02d}/{d}/{y}", f"{m}/{d}/{y}"]), f"{y}-{m:02d}-{d:02d}"


def phone(r):
    if r.random() < .7:  # no country code means +1, as the wordings say
        a, b, c = r.randint(200, 999), r.randint(200, 999), r.randint(0, 9999)
        return r.choice([f"({a}) {b}-{c:04d}", f"{a}.{b}.{c:04d}", f"+1 {a} {b} {c:04d}", f"{a}{b}{c:04d}", f"{a}-{b}-{c:04d}",
                         f"{a} {b} {c:04d}", f"1-{a}-{b}-{c:04d}", f"+1 ({a}) {b}-{c:04d}"]), f"+1{a}{b}{c:04d}"
    cc, a = r.choice(["44", "49", "33", "34", "39", "61", "81", "86", "91"]), str(r.randint(20, 99))
    b, c = str(r.randint(100, 999)), str(r.randint(1000, 9999))
    p, s = r.choice(["+", "00", "+"]), r.choice(["-", " ", "."])
    return r.choice([f"{p}{cc} {a} {b} {c}", f"{p}{cc}{s}{a}{s}{b}{s}{c}", f"{p}{cc} ({a}) {b} {c}"]), f"+{cc}{a}{b}{c}"


def amount(r):
    v, c = r.randint(0, 10 ** r.randint(1, 6) - 1), r.randint(0, 99)
    if r.random() < .2:
        return r.choice([f"${v:,}", f"{v} EUR", f"USD {v:,}", f"{v} dollars", f"£{v}", f"€ {v}"]), f"{v}.00"
    eu = f"{v:,}".replace(",", ".") + f",{c:02d}"
    return r.choice([f"${v:,}.{c:02d}", f"USD {v}.{c:02d}", f"{v:,}.{c:02d} dollars", f"{eu} €", f"{eu} EUR", f"EUR {eu}",
                     f"£{v:,}.{c:02d}", f"$ {v}.{c:02d}", f"{v:,}.{c:02d} USD"]), f"{v}.{c:02d}"


def _say(r, good):
    if r.random() < .45:
        s = r.choice(GOOD_SAY if good else BAD_SAY)
    else:
        s = spin(r, r.choice(GOOD_FORM if good else BAD_FORM)).format(
            p=r.choice(PRODUCTS), g=r.choice(GOOD), b=r.choice(BAD), g2=r.choice(GOOD), b2=r.choice(BAD))
    return s.strip()


def sentiment(r):
    good = r.random() < .5
    parts = [_say(r, good)] + ([_say(r, good)] if r.random() < .3 else [])
    text = r.choice([". ", ", ", "! ", " - "]).join(parts)
    if r.random() < .4:
        text = r.choice(ASIDE).format(m=r.choice(MONTHS), p=r.choice(PRODUCTS), n=r.randint(2, 30)) + r.choice([": ", ", ", ". "]) + text
    if r.random() < .6:
        text = text[0].upper() + text[1:]
    return text + r.choice(["", ".", "!", ""]), "positive" if good else "negative"


def ticket(r):
    kind = r.choice(sorted(TICKETS))
    text = spin(r, r.choice(TICKETS[kind]))
    if r.random() < .3:
        text = r.choice(HELLO) + ", " + text[0].lower() + text[1:] if text[0] != "I" else r.choice(HELLO) + ", " + text
    text += r.choice([".", "", "!", "."])
    if r.random() < .3:
        text += (" " if text[-1] in ".!" else ". ") + r.choice(BYE)
    return text.format(n=r.randint(2, 99), m=r.choice(MONTHS), p=r.choice(PRODUCTS)), kind


def country(r):
    code = r.choice(sorted(COUNTRIES))
    names = COUNTRIES[code].split("|")
    return recase(r, names[0] if r.random() < .5 else r.choice(names)), code


def currency(r):
    code = r.choice(sorted(CURRENCIES))
    return recase(r, r.choice(CURRENCIES[code].split("|"))), code


def boolean(r):
    yes = r.random() < .5
    s = r.choice(TRUE if yes else FALSE)
    return r.choice([s, s.upper(), s.capitalize()]), "true" if yes else "false"


def clock(r):
    h, m = r.randrange(24), r.choice([0, r.randrange(60), r.randrange(60)])
    h12, am = (h % 12) or 12, h < 12
    ap = r.choice(["am", "AM", "a.m.", "A.M."] if am else ["pm", "PM", "p.m.", "P.M."])
    if m == 0 and r.random() < .6:
        return r.choice([f"{h12} {ap}", f"{h12}{ap}", f"{h12} {ap}"] + (["noon"] if h == 12 else ["midnight"] if h == 0 else [])), f"{h:02d}:00"
    return r.choice([f"{h12}:{m:02d} {ap}", f"{h12}:{m:02d}{ap}", f"{h12:02d}:{m:02d} {ap}", f"{h12}.{m:02d} {ap}"]), f"{h:02d}:{m:02d}"


def percent(r):
    n, places = (r.randint(1, 150), 0) if r.random() < .6 else (r.randint(1, 999), 1)
    return decimal(n, places) + r.choice(["%", " %", " percent", " per cent", " pct"]), decimal(n, places + 2)


def unit(r):
    big, small, k = r.choice(UNITS)
    places = r.randint(0, min(2, k))
    n = r.randint(1, 10 ** r.randint(1, 3) - 1)
    a, b = r.choice(big.split("|")), r.choice(small.split("|"))
    x, y = decimal(n, places), str(n * 10 ** (k - places))
    if r.random() < .6:
        return f"{x} {a} {r.choice(['to', 'in', '->'])} {b}", y
    return f"{y} {b} {r.choice(['to', 'in', '->'])} {a}", x


def language(r):
    code = r.choice(sorted(LANGUAGES))
    a, b = (r.choice(s.split("|")) for s in LANGUAGES[code])
    s = f"{a} {b}"
    if r.random() < .25:
        s = r.choice([a, b]) if r.random() < .5 and code not in ("es", "pt") else s + ", " + " ".join(r.choice(p.split("|")) for p in LANGUAGES[code])
    return (s[0].upper() + s[1:] + r.choice([".", "!", ""])) if r.random() < .6 else s, code


# ---- instructions: spintax; one with {x} places the data itself

_TO = "[Convert|Normalise|Normalize|Rewrite|Change|Turn|Format|Put]"
_CLASS = "[Classify|Label|Tag|Sort|Categorize]"
WORDINGS = {
    "date": [_TO + " [the|this] date [to|into|as] [ISO 8601|ISO format|YYYY-MM-DD]", "What is {x} in [ISO 8601|YYYY-MM-DD|ISO format]?",
             "[Date|Clean the date|Fix the date|Give the date|Write the date] [as|in] [ISO 8601|YYYY-MM-DD|ISO format]",
             "[Return|Give me|Write] the ISO [8601 |]date [for|of|from]"],
    "phone": [_TO + " [the|this] phone number [to|into|as] E.164 [|(default +1)|(US if no country code)]", "What is {x} in E.164[| format]?",
              "[Clean|Fix|Normalise|Normalize] [the|this] [phone|telephone] number[|, use E.164| to E.164]", "[Phone number|Telephone|Phone] [as|in|to] E.164[| format]",
              "[Return|Give|Write] the E.164 [number|form] [of|for]"],
    "amount": [_TO + " [the|this] [amount|price|sum] [to|into|as] a [plain|] [decimal|decimal number|number]", "What is {x} as a plain [decimal|number]?",
               "[Clean|Fix|Normalise|Normalize] [the|this] [amount|price|sum]", "[Amount|Price|Sum] [as|in|to] [plain|] [decimal|digits]",
               "[Remove|Strip] the currency [from|and separators from]", "[Return|Give|Write] the plain [decimal|number] [of|for]"],
    "sentiment": [_CLASS + " [the|this] review as positive or negative", "[What is the|Give the|Find the|Return the] sentiment [of|in] [the|this] [review|text|comment]",
                  "Is [the|this] [review|comment|customer|text] positive or negative?", "[Sentiment|Positive or negative|Mood of the review|Sentiment (positive/negative)]",
                  "[Tell|Say|Decide] [if|whether] [the|this] [review|comment] is positive or negative"],
    "ticket": [_CLASS + " [the|this] [ticket|request|message|support ticket]", "[Which|What] [category|department|team|queue] [is|fits] [the|this] [ticket|message|request]?",
               _CLASS + " [the|this] [ticket|message] as billing, shipping, technical, account or returns", "[Category|Topic|Ticket category|Support category] [of|for] [the|this] [ticket|message|request]",
               "[Route|Assign] [the|this] [ticket|message|request] [|to a team|to a department]"],
    "country": [_TO + " [the|this] country [to|into|as] [an ISO code|ISO 3166|ISO alpha-2|a two-letter code|the ISO code]", "What is the [country|ISO|two-letter] code [of|for] {x}?",
                "[ISO|Country|Two-letter|Alpha-2] code [of|for] [the|this] country", "[Return|Give|Write] the [ISO|alpha-2|two-letter] country code [of|for]"],
    "currency": [_TO + " [the|this] currency [to|into|as] [an ISO code|ISO 4217|a currency code|the ISO code]", "What is the currency code [of|for] {x}?",
                 "[ISO 4217|ISO|Three-letter] currency code [of|for]", "[Return|Give|Write] the [currency|ISO 4217] code [of|for]"],
    "boolean": [_TO + " [the|this] [value|flag|field|answer] [to|into|as] [true or false|a boolean|true/false]", "Is {x} true or false?",
                "[Boolean|True or false|Boolean value|Flag as boolean]", "[Return|Give|Write] the boolean [value of|for]", "[Clean|Fix] the boolean [flag|field|value]"],
    "clock": [_TO + " [the|this] time [to|into|as] [24-hour|24h|24 hour] [format|time|clock]", "What is {x} in [24-hour|24h|HH:MM 24h] [time|format]?",
              "[Time|Clock time|Clean the time|Fix the time] [as|in|to] [24h|24-hour time|HH:MM|24-hour format]", "[Return|Give|Write] the [24-hour|24h] time [of|for]"],
    "percent": [_TO + " [the|this] [percentage|percent value|percent] [to|into|as] a [fraction|decimal fraction|decimal|ratio]", "What is {x} as a [decimal|fraction|decimal fraction]?",
                "[Percent|Percentage] [as|to|in] [decimal|fraction|decimal fraction]", "[Return|Give|Write] the [fraction|decimal fraction] [of|for] [the|this] percentage"],
    "unit": ["Convert [|the value|the unit|the measure|units]", "[Change|Convert] the unit", "What is {x}?", "[Unit conversion|Convert units]", "[Calculate|Compute|How much is]"],
    "language": [_CLASS + " the language [of|in] [the|this] [text|sentence|message]", "[Which|What] language is [this|the text|this sentence]?", "[Detect|Find|Recognise|Identify] the language[| of the text| of this text]",
                 "[Language|ISO 639 code|Language code] of [the|this] [text|sentence]", "[Return|Give|Write] the language code [of|for] [the|this] text"],
}
MAKERS = {"date": date, "phone": phone, "amount": amount, "sentiment": sentiment, "ticket": ticket, "country": country,
          "currency": currency, "boolean": boolean, "clock": clock, "percent": percent, "unit": unit, "language": language}
JOBS = tuple(MAKERS)

# Key of a job's answer when JSON is asked for; only one-word answers, so that the form costs few tokens.
JSON_KEY = {"sentiment": "sentiment", "ticket": "category", "country": "country", "currency": "currency", "language": "language", "date": "date"}
_AS_JSON = ["Answer as JSON with key {k}.", "Reply in JSON: {{\"{k}\": ...}}", "Return JSON with the key {k}.", "JSON key: {k}", "Respond with a JSON object, key {k}."]
_TAIL = ["Answer with the value only.", "Answer only.", "No explanation.", "Value only.", "Reply with the result only.", "Just the answer."]
SYSTEM = ["You clean data.", "You are a data cleaning assistant.", "Answer with the cleaned value only.", "You are a helpful assistant.", "Be brief."]

TEST_PROMPT, TEST_WORDING = 16, 12  # one in so many is held out


def held(text, n):
    return zlib.crc32(text.encode()) % n == 0


def _draft(r, job):
    x, want = MAKERS[job](r)
    ins = re.sub(" +", " ", spin(r, r.choice(WORDINGS[job]))).strip()
    wording = ins
    if "{x}" in ins:
        text = ins.replace("{x}", r.choice([x, x, f'"{x}"']))
    else:
        end = "" if ins[-1] == "?" else "."
        colon = " " if ins[-1] == "?" else ": "
        text = r.choice([f"{ins}{colon}{x}", f"{ins}{colon}{x}", f"{ins}{colon.rstrip()}\n{x}", f'{ins}{colon}"{x}"', f"{ins}{end} Input: {x}",
                         f"{x}\n{ins}{end}", f'"{x}"\n{ins}{end}', f"Input: {x}\n{ins}{end}", f"Text: {x}\nTask: {ins}"])
        if r.random() < .12:
            text = text[0].lower() + text[1:]
    u = r.random()
    if job in JSON_KEY and u < .15:
        text += ("\n" if r.random() < .5 or text[-1] not in ".?" else " ") + r.choice(_AS_JSON).format(k=JSON_KEY[job])
        want = json.dumps({JSON_KEY[job]: want}, separators=(",", ":"))
    elif u < .3:
        text += ("\n" if r.random() < .5 or text[-1] not in ".?" else " ") + r.choice(_TAIL)
    return text, want, wording


def make(r, job, split="train"):
    """One (prompt, answer) of a job. split: train, test (prompt never trained on), wording (instruction never trained on)."""
    while True:
        text, want, wording = _draft(r, job)
        new_wording = held(job + wording, TEST_WORDING)
        if split == "wording" and new_wording:
            return text, want
        if split != "wording" and not new_wording and held(text, TEST_PROMPT) == (split == "test"):
            return text, want
