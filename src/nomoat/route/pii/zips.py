"""States of the USA with the first digits of their ZIP codes: two letters and any five digits are also `order ID 48213`.

Source: the three-digit prefixes of the Postal Service. All but 28 of the 41,749 ZIPs of PyPI's `zipcodes` 3.0.0 fit. Not covered:
those 28 (offices of the government, and towns such as Fishers Island that another state serves), territories and the forces.
"""

from __future__ import annotations

PREFIXES = {
    "AL": "3[56]", "AK": "99[5-9]", "AZ": "8[56]", "AR": "7[12]", "CA": "9[0-6]", "CO": "8[01]", "CT": "06", "DC": "20",
    "DE": "19[789]", "FL": "3[2-4]", "GA": "3[01]|39[89]", "HI": "96[78]", "IA": "5[0-2]", "ID": "83[2-8]", "IL": "6[0-2]",
    "IN": "4[67]", "KS": "6[67]", "KY": "4[0-2]", "LA": "7[01]", "MA": "0[12]|055", "MD": "2[01]", "ME": "0[34]",
    "MI": "4[89]", "MN": "5[56]", "MO": "6[3-5]", "MS": "38[6-9]|39[0-7]", "MT": "59", "NC": "2[78]", "ND": "58",
    "NE": "6[89]", "NH": "03", "NJ": "0[78]", "NM": "8[78]", "NV": "8[89]", "NY": "1[0-4]", "OH": "4[3-5]", "OK": "7[34]",
    "OR": "97", "PA": "1[5-9]", "RI": "02", "SC": "29", "SD": "57", "TN": "3[78]", "TX": "7[5-9]|733|885", "UT": "84",
    "VA": "2[0-4]", "VT": "05", "WA": "9[89]", "WI": "5[34]", "WV": "2[4-6]", "WY": "82|83[01]|834",
}  # fmt: skip
STATES = "|".join(PREFIXES)
ZIP = r"\d{5}(?:-\d{4})?(?![\d-])"


def state_and_zip(apart: str) -> str:
    """A pattern of a state and a ZIP of its own, with what may stand between the two, which begins with no letter."""
    fitting = "|".join(f"{state}(?={apart}(?:{first}))" for state, first in PREFIXES.items())
    return rf"(?=[A-Z]{{2}}\W)(?:{fitting}){apart}{ZIP}"  # few words are looked up among the states
