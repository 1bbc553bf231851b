"""Countries by their English names: a complete list, where a language model would guess."""

import re
from collections.abc import Iterable, Iterator

from rlaas.privacy.names import Name

_COUNTRIES = frozenset(
    """
    Afghanistan|Albania|Algeria|Andorra|Angola|Antigua and Barbuda|Argentina|Armenia|Aruba|Australia|Austria|Azerbaijan|Bahamas|Bahrain
    |Bangladesh|Barbados|Belarus|Belgium|Belize|Benin|Bermuda|Bhutan|Bolivia|Bosnia|Bosnia and Herzegovina|Botswana|Brazil|Brunei|Bulgaria
    |Burkina Faso|Burma|Burundi|Cambodia|Cameroon|Canada|Cape Verde|Central African Republic|Chile|China|Colombia|Comoros|Congo|Costa Rica
    |Croatia|Cuba|Curaçao|Cyprus|Czech Republic|Czechia|Denmark|Djibouti|Dominica|Dominican Republic|East Timor|Ecuador|Egypt|El Salvador
    |England|Equatorial Guinea|Eritrea|Estonia|Eswatini|Ethiopia|Faroe Islands|Fiji|Finland|France|French Polynesia|Gabon|Gambia|Germany
    |Ghana|Gibraltar|Great Britain|Greece|Greenland|Grenada|Guadeloupe|Guam|Guatemala|Guernsey|Guinea|Guinea-Bissau|Guyana|Haiti|Honduras
    |Hong Kong|Hungary|Iceland|India|Indonesia|Iran|Iraq|Ireland|Isle of Man|Israel|Italy|Ivory Coast|Jamaica|Japan|Kazakhstan|Kenya
    |Kiribati|Kosovo|Kuwait|Kyrgyzstan|Laos|Latvia|Lebanon|Lesotho|Liberia|Libya|Liechtenstein|Lithuania|Luxembourg|Macao|Macau|Macedonia
    |Madagascar|Malawi|Malaysia|Maldives|Mali|Malta|Marshall Islands|Martinique|Mauritania|Mauritius|Mexico|Micronesia|Moldova|Monaco
    |Mongolia|Montenegro|Morocco|Mozambique|Myanmar|Namibia|Nauru|Nepal|Netherlands|New Caledonia|New Zealand|Nicaragua|Niger|Nigeria
    |North Korea|North Macedonia|Northern Ireland|Norway|Oman|Pakistan|Palau|Palestine|Panama|Papua New Guinea|Paraguay|Peru|Philippines
    |Poland|Portugal|Puerto Rico|Qatar|Romania|Russia|Rwanda|Réunion|Samoa|San Marino|Saudi Arabia|Scotland|Senegal|Serbia|Seychelles
    |Sierra Leone|Singapore|Slovakia|Slovenia|Solomon Islands|Somalia|South Africa|South Korea|South Sudan|Spain|Sri Lanka|St Lucia|Sudan
    |Suriname|Swaziland|Sweden|Switzerland|Syria|Taiwan|Tajikistan|Tanzania|Thailand|Togo|Tonga|Trinidad and Tobago|Tunisia|Turkey|Türkiye
    |Turkmenistan|Tuvalu|Uganda|Ukraine|United Arab Emirates|United Kingdom|United States|United States of America|Uruguay|Uzbekistan
    |Vanuatu|Venezuela|Vietnam|Wales|Western Sahara|Yemen|Zambia|Zimbabwe
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
"""Chad, Georgia, Jersey and Jordan are missing because they are also first names."""
_THINGS = frozenset({"china", "guinea", "turkey", "wales"})
"""Names that mean something else in lower case."""


def _match_any(names: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w@./-])(?:{'|'.join(longest_first)})(?![\w@-]|\.\w)")


_CAPITALISED = _match_any({*_COUNTRIES, *(name.upper() for name in _COUNTRIES)})
_LOWER_CASE = _match_any({name.lower() for name in _COUNTRIES} - _THINGS)


def find_countries(text: str) -> Iterator[Name]:
    """The countries in `text`: written as usual or in capitals, and in lower case if all of `text` is in lower case."""
    for expression in (_CAPITALISED, *([_LOWER_CASE] if text == text.lower() else [])):
        for match in expression.finditer(text):
            yield Name(match.start(), match.end())
