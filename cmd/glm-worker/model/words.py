"""Vocabulary of the generated tasks: plain lists, no logic, so that they are easy to read and to extend.

Lists marked "spintax" hold texts such as "[Convert|Turn] the date": jobs.spin picks one choice from each bracket.
"""

MONTHS = ("January February March April May June July August September October November December").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

# ISO 3166 alpha-2: names and common spellings, most usual first.
COUNTRIES = {
    "US": "United States|USA|U.S.A.|United States of America|America", "GB": "United Kingdom|UK|Great Britain|U.K.",
    "DE": "Germany|Deutschland", "FR": "France", "ES": "Spain", "IT": "Italy|Italia", "PT": "Portugal",
    "NL": "Netherlands|The Netherlands|Holland", "BE": "Belgium", "LU": "Luxembourg", "CH": "Switzerland",
    "AT": "Austria", "IE": "Ireland|Republic of Ireland", "DK": "Denmark", "SE": "Sweden", "NO": "Norway",
    "FI": "Finland", "IS": "Iceland", "PL": "Poland", "CZ": "Czech Republic|Czechia", "SK": "Slovakia",
    "HU": "Hungary", "RO": "Romania", "BG": "Bulgaria", "GR": "Greece", "HR": "Croatia", "SI": "Slovenia",
    "RS": "Serbia", "UA": "Ukraine", "EE": "Estonia", "LV": "Latvia", "LT": "Lithuania", "RU": "Russia|Russian Federation",
    "TR": "Turkey|Türkiye|Turkiye", "CY": "Cyprus", "MT": "Malta", "AL": "Albania", "CA": "Canada", "MX": "Mexico",
    "BR": "Brazil|Brasil", "AR": "Argentina", "CL": "Chile", "CO": "Colombia", "PE": "Peru", "VE": "Venezuela",
    "EC": "Ecuador", "BO": "Bolivia", "UY": "Uruguay", "PY": "Paraguay", "CU": "Cuba", "JM": "Jamaica",
    "CR": "Costa Rica", "PA": "Panama", "GT": "Guatemala", "CN": "China|PR China|People's Republic of China",
    "JP": "Japan", "KR": "South Korea|Republic of Korea|Korea (South)", "KP": "North Korea", "TW": "Taiwan", "HK": "Hong Kong",
    "SG": "Singapore", "MY": "Malaysia", "ID": "Indonesia", "TH": "Thailand", "VN": "Vietnam|Viet Nam",
    "PH": "Philippines|The Philippines", "IN": "India", "PK": "Pakistan", "BD": "Bangladesh", "LK": "Sri Lanka",
    "NP": "Nepal", "KZ": "Kazakhstan", "MN": "Mongolia", "AU": "Australia", "NZ": "New Zealand", "FJ": "Fiji",
    "EG": "Egypt", "MA": "Morocco", "DZ": "Algeria", "TN": "Tunisia", "NG": "Nigeria", "GH": "Ghana", "KE": "Kenya",
    "ET": "Ethiopia", "TZ": "Tanzania", "UG": "Uganda", "ZA": "South Africa", "SN": "Senegal", "CM": "Cameroon",
    "ZW": "Zimbabwe", "ZM": "Zambia", "RW": "Rwanda", "SA": "Saudi Arabia|Kingdom of Saudi Arabia",
    "AE": "United Arab Emirates|UAE", "QA": "Qatar", "KW": "Kuwait", "JO": "Jordan", "LB": "Lebanon", "IL": "Israel",
    "IQ": "Iraq", "IR": "Iran", "AF": "Afghanistan",
}

CURRENCIES = {
    "EUR": "euro|euros|€|Euro", "USD": "US dollar|US dollars|U.S. dollar|US$|American dollars|United States dollar",
    "GBP": "pound sterling|British pound|British pounds|£|pounds sterling|UK pound", "JPY": "Japanese yen|yen|¥",
    "CNY": "Chinese yuan|yuan|renminbi", "CHF": "Swiss franc|Swiss francs|Sfr", "CAD": "Canadian dollar|Canadian dollars|C$",
    "AUD": "Australian dollar|Australian dollars|A$", "NZD": "New Zealand dollar|New Zealand dollars|NZ$",
    "INR": "Indian rupee|Indian rupees|₹", "BRL": "Brazilian real|Brazilian reais|R$", "MXN": "Mexican peso|Mexican pesos",
    "SEK": "Swedish krona|Swedish kronor", "NOK": "Norwegian krone|Norwegian kroner", "DKK": "Danish krone|Danish kroner",
    "PLN": "Polish zloty|zloty|złoty", "CZK": "Czech koruna|Czech crowns", "HUF": "Hungarian forint|forint",
    "TRY": "Turkish lira|₺", "RUB": "Russian ruble|Russian rubles|₽", "ZAR": "South African rand|rand",
    "KRW": "South Korean won|Korean won|₩", "SGD": "Singapore dollar|Singapore dollars|S$", "HKD": "Hong Kong dollar|HK$",
    "THB": "Thai baht|baht|฿", "ILS": "Israeli shekel|shekels|₪", "AED": "UAE dirham|Emirati dirham",
    "SAR": "Saudi riyal|Saudi riyals", "EGP": "Egyptian pound|Egyptian pounds", "NGN": "Nigerian naira|naira|₦",
}

TRUE = "yes y true t 1 on enabled enable active checked ok yep yeah correct affirmative".split()
FALSE = "no n false f 0 off disabled disable inactive unchecked nope nah incorrect negative never".split()

PRODUCTS = ("blender jacket phone lamp chair keyboard mouse backpack toaster kettle tent camera watch printer router "
            "headset speaker mattress vacuum bicycle stroller drill umbrella sofa desk monitor charger wallet razor grill "
            "hotel restaurant app course book game hairdryer pillow fridge heater cable case bag toy pan").split()
GOOD = ("great excellent fantastic superb wonderful brilliant lovely perfect amazing sturdy reliable comfortable gorgeous "
        "impressive delightful solid handy awesome outstanding beautiful terrific flawless pleasant charming stunning").split()
BAD = ("terrible awful horrible useless broken flimsy disappointing cheap ugly defective noisy uncomfortable unreliable dreadful "
       "poor faulty shoddy unusable pathetic annoying overpriced damaged scratched dirty rubbish").split()
GOOD_SAY = """I love it|love it so much|works perfectly|works like a charm|exceeded my expectations|better than I expected
worth every penny|great value for money|arrived early|fast delivery|arrived a day ahead of time|the staff were friendly
support was quick and kind|I would buy it again|would recommend it to anyone|highly recommended|five stars|no complaints
I could not be happier|my kids adore it|it made my day|simply the best|very happy with it|really pleased with this
exactly as described|easy to set up|it never fails|so glad I bought it|top quality|I am impressed|it looks and feels premium
best purchase this year|thank you for the great service|we will come back|everything went smoothly|it saved me hours
cannot fault it|I enjoy using it every day|a joy to use|well made|it still runs like new""".replace("\n", "|").split("|")
BAD_SAY = """I hate it|hate it so much|does not work|stopped working|worse than I expected|it broke after a week
waste of money|not worth the price|arrived late|slow delivery|arrived broken|the staff were rude|support never answered
I want my money back|would not recommend it|avoid this|one star|nothing but problems|I regret buying it|my kids cried
it ruined my day|simply the worst|very unhappy with it|really upset about this|not as described|impossible to set up
it keeps failing|never again|bad quality|I am disappointed|it looks and feels cheap|worst purchase this year
terrible service|we will not come back|everything went wrong|it cost me hours|it fell apart|it smells awful|a pain to use
badly made|it died after two days|I sent it back""".replace("\n", "|").split("|")
# spintax; {p} product, {g}/{b} adjective
GOOD_FORM = ["The {p} is [|really |very |so |just ]{g}", "[What a|Such a] {g} {p}", "This {p} [was|is|feels] {g}", "[Really|Truly|Absolutely] {g}",
             "The {p} is not {b} [|at all]", "I [love|like|adore|enjoy] [this|the|my new] {p}", "[Quite|Pretty] {g} {p}", "{g} and {g2}"]
BAD_FORM = ["The {p} is [|really |very |so |just ]{b}", "[What a|Such a] {b} {p}", "This {p} [was|is|feels] {b}", "[Really|Truly|Absolutely] {b}",
            "The {p} is not {g} [|at all]", "I [hate|dislike|regret|returned] [this|the|my new] {p}", "[Quite|Pretty] {b} {p}", "{b} and {b2}"]
ASIDE = ["Bought it in {m}", "My {p}", "Honestly", "Second order", "Ordered online", "Got this as a gift", "Update", "To be fair", "After {n} days",
         "Well", "For my office", "Bought two"]

# spintax
TICKETS = {
    "billing": ["I was [charged|billed] [twice|two times|again] [this month|for one order|on my card]", "[My|The] invoice [is wrong|shows the wrong amount|has an error]",
                "[Why|Can you explain why] [is|was] my bill so high", "[Please send|I need|Where is] [the invoice|a receipt|my receipt] for {m}",
                "My [credit card|card|payment] was [declined|rejected|refused]", "[There is|I see] an unknown [charge|fee|payment] on my [statement|card|invoice]",
                "You [charged|billed] me {n} dollars too much", "[Can I|I want to|How do I] pay by [card|bank transfer|invoice]", "The VAT on [my|the] [invoice|bill] is wrong",
                "[My subscription|The plan] [fee|price] [went up|was charged twice]", "[The discount|My coupon|The voucher] was not [applied|taken off the bill]"],
    "shipping": ["[My|The] [parcel|package|order] has not [arrived|come|been delivered]", "Where is my [parcel|package|order|delivery]", "[The|My] [delivery|shipment] is {n} days late",
                 "The tracking [number|link|page] [shows nothing|does not update|says lost]", "[Can you|Please] [ship|send|deliver] it to [another|a new] address",
                 "[The courier|The driver|Your courier] [never came|left it at the wrong door|lost my parcel]", "[When|On what day] will my [parcel|package|order] [arrive|ship|be delivered]",
                 "[My|The] [parcel|package] is stuck [in customs|at the depot|in {m}]", "[Do you|Can you] [ship|deliver] to [Canada|Norway|Japan|Spain|Brazil]",
                 "[It was|My order was] delivered to the wrong [house|street|city]"],
    "technical": ["The [app|site|website|program] [crashes|freezes|hangs] [when I open it|on start|every time|all day]", "I [get|see] error {n} [on start|when I save|in the app]",
                  "The [page|site|screen] [is blank|does not load|stays white|is very slow]", "[The update|Version {n}] broke [the app|sync|search|printing]",
                  "[Sync|Search|The search|Export|Upload] [does not work|fails|stopped working]", "[My|The] [device|router|printer] does not connect [|to wifi|to the app]",
                  "[I found a bug|There is a bug] in [the app|search|the export|version {n}]", "[The button|The menu] does [nothing|not respond]",
                  "[The server|Your API] [returns|gives] [an error|error {n}|a timeout]", "[The video|The sound|The screen] [stutters|flickers|does not work]"],
    "account": ["I [forgot|lost] my [password|login|user name]", "[Please|How do I] [delete|close|remove] my account", "[How do I|I want to|Please] [change|update] my [e-mail|email|name|password|profile]",
                "I [cannot|can not|can't] [log in|sign in|login]", "My account [is locked|was blocked|was hacked|is disabled]", "[The|My] [reset|login] code [never arrives|does not work|is not accepted]",
                "[Please|Can you] [add|remove] a user [to|from] my account", "[How do I|I want to] [turn on|switch off] two-factor login", "[Someone|A stranger] [logged in to|uses] my account",
                "[Please|Can you] merge my two accounts", "I [never got|did not get] the sign-up e-mail"],
    "returns": ["I [want|would like|need] to [return|send back] [it|this|the {p}|my order]", "[How do I|Can I|How can I] [return|exchange|send back] [it|this|the {p}]",
                "The {p} [is|was|came] [broken|damaged|faulty], [I want a replacement|please replace it|I want to send it back]", "[I got|You sent me|I received] the wrong [size|color|item|{p}]",
                "[Please|Can you] [replace|exchange] [the|my] {p}", "[The {p}|It] does not fit, [can I exchange it|I want to return it]", "[Where is|I need|Please send] [the|a] return label",
                "[How long|How many days] do I have to return [it|the {p}]", "[Did you get|Have you received] [my return|the {p} I sent back]", "I want to swap [the|my] {p} for another [size|color]"],
}
HELLO = ["Hi", "Hello", "Hey", "Good morning", "Dear team", "Hi there"]
BYE = ["Thanks", "Thank you", "Please help", "Best regards", "What can I do?", "It is urgent", "Please answer soon", "My number is {n}"]

# Opening and ending of a sentence in one language: any pair is a sentence of sorts, no pair is in two languages.
LANGUAGES = {
    "en": ("the order is|this house was|my brother is|we have been|they are not|your letter is|where is|I think it is|the weather is|she was|it will be|you should be",
           "here since Monday|in the kitchen|very good today|with the children|too late for us|on the table|always the same|near the river|better than before|ready for you"),
    "de": ("die Bestellung ist|das Haus war|mein Bruder ist|wir sind|sie sind nicht|Ihr Brief ist|wo ist|ich glaube es ist|das Wetter ist|sie war|es wird|du bist",
           "seit Montag hier|in der Küche|heute sehr gut|mit den Kindern|zu spät für uns|auf dem Tisch|immer gleich|nahe am Fluss|besser als vorher|für dich bereit"),
    "fr": ("la commande est|cette maison était|mon frère est|nous sommes|ils ne sont pas|votre lettre est|où est|je crois que c'est|le temps est|elle était|ce sera|vous êtes",
           "ici depuis lundi|dans la cuisine|très bien aujourd'hui|avec les enfants|trop tard pour nous|sur la table|toujours pareil|près de la rivière|mieux qu'avant|prêt pour vous"),
    "es": ("el pedido está|esta casa era|mi hermano está|nosotros estamos|ellos no están|su carta está|dónde está|creo que está|el tiempo es|ella estaba|será|usted está",
           "aquí desde el lunes|en la cocina|muy bien hoy|con los niños|demasiado tarde para nosotros|sobre la mesa|siempre igual|cerca del río|mejor que antes|listo para usted"),
    "it": ("l'ordine è|questa casa era|mio fratello è|noi siamo|loro non sono|la sua lettera è|dov'è|credo che sia|il tempo è|lei era|sarà|tu sei",
           "qui da lunedì|nella cucina|molto bene oggi|con i bambini|troppo tardi per noi|sul tavolo|sempre uguale|vicino al fiume|meglio di prima|pronto per te"),
    "pt": ("o pedido está|esta casa era|meu irmão está|nós estamos|eles não estão|sua carta está|onde está|acho que está|o tempo é|ela estava|vai ser|você está",
           "aqui desde segunda|na cozinha|muito bem hoje|com as crianças|tarde demais para nós|em cima da mesa|sempre igual|perto do rio|melhor do que antes|pronto para você"),
}

# larger unit, smaller unit, power of ten; each with its spellings
UNITS = [("km|kilometers|kilometres", "m|meters|metres", 3), ("kg|kilograms", "g|grams", 3), ("l|liters|litres", "ml|milliliters", 3),
         ("g|grams", "mg|milligrams", 3), ("t|tonnes", "kg|kilograms", 3), ("m|meters|metres", "mm|millimeters", 3),
         ("m|meters|metres", "cm|centimeters", 2), ("cm|centimeters", "mm|millimeters", 1), ("seconds|s", "milliseconds|ms", 3),
         ("dollars", "cents", 2), ("euros", "cents", 2), ("kW|kilowatts", "W|watts", 3)]
