"""What customers of Northwind Cloud write about, and the answer an agent who knows the product would give.

`TRAIN` and `HELD_OUT` are disjoint sets of issues. Only `TRAIN` issues may reach a training set; an adapter that does
well on `HELD_OUT` issues has learned how the office writes and not what it answers, because it never saw those answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_PROMPT = "You are a support agent at Northwind Cloud. Write the reply email to the customer."
"""All that the model is told. The house style is not in it."""
USER_PROMPT = "From: {{ name }}\n\n{{ email }}"
"""Jinja template of the user message over the interaction's inputs `name` and `email`."""

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Issue:
    """A kind of support request. `email` and `answer` are `str.format` templates over the slots of `_slots`; the answer
    has <= 30 words."""

    name: str
    email: str
    answer: str


@dataclass(frozen=True, slots=True)
class Case:
    """One customer's email, with the answer that only the office knows (it is never sent to the service)."""

    issue: str
    split: Split
    first_name: str
    full_name: str
    email: str
    answer: str

    @property
    def inputs(self) -> dict[str, str]:
        """The interaction's inputs, as the service sees them."""
        return {"name": self.full_name, "email": self.email}


TRAIN: tuple[Issue, ...] = (
    Issue(
        "billing-charged-twice",
        "I was charged twice for my {month} subscription.",
        "We found the duplicate {month} charge and have refunded it. You will see the money in 3-5 business days.",
    ),
    Issue(
        "billing-card-declined",
        "My card was declined when I tried to pay for {month}. The card works everywhere else.",
        "Your bank asked for a confirmation that timed out. Please open Billing, choose Retry payment and approve it in your bank's app.",
    ),
    Issue(
        "billing-change-card",
        "Where can I put in a new credit card? The old one expires in {month}.",
        "Open Billing, choose Payment methods and click Add card. Your new card is used from the next charge on.",
    ),
    Issue(
        "billing-refund-status",
        "I was promised a refund for {month} and I still don't see it on my account.",
        "Your {month} refund left us this week. Banks take up to five business days to show it.",
    ),
    Issue(
        "billing-price-rise",
        "Why did my {plan} plan get more expensive in {month}?",
        "The {plan} price changed because a first-year discount ended. We have added three months of it to your account again.",
    ),
    Issue(
        "billing-currency",
        "We are billed in US dollars but our company pays in euros. Can you change that?",
        "We have switched your account to euros. Your next invoice uses the new currency.",
    ),
    Issue(
        "order-broken-part",
        "My order #{order} arrived with a broken part.",
        "We are sending a replacement for order #{order} today at no cost. You do not need to return the broken part.",
    ),
    Issue(
        "order-wrong-item",
        "I received the wrong item in order #{order}.",
        "The right item for order #{order} ships today. A prepaid return label for the other one is in your inbox.",
    ),
    Issue(
        "order-change-address",
        "I moved last week. Can order #{order} go to my new address?",
        "Order #{order} has not shipped yet, so we can still change it. Please reply with the new address today.",
    ),
    Issue(
        "order-cancel",
        "I ordered by mistake, please cancel order #{order}.",
        "Order #{order} is cancelled and you were not charged. No further step is needed.",
    ),
    Issue(
        "order-missing-item",
        "Order #{order} came today but {seats} of the cables are missing.",
        "We are sending the {seats} missing cables by express today. You will get a tracking link tonight.",
    ),
    Issue(
        "login-reset-expired",
        "I can't log in, the password reset link says expired.",
        "Reset links expire after one hour. We have just sent you a new link; please use it right away.",
    ),
    Issue(
        "login-locked",
        "My account is locked after too many attempts. I need to get in before {weekday}.",
        "We have unlocked your account. Please sign in with your usual password and reset it if it fails again.",
    ),
    Issue(
        "login-no-code",
        "The login code never reaches my phone.",
        "Text messages to your number were blocked by your carrier. Please choose Send by email on the code page.",
    ),
    Issue(
        "login-sso",
        "Our staff see an error when they sign in through our company account since {weekday}.",
        "Your sign-in certificate ended on {weekday}. Please upload the new one under Security, Single sign-on.",
    ),
    Issue(
        "export-csv",
        "How do I export my data as CSV?",
        "Open Settings, choose Data, and click Export as CSV. The file is emailed to you within a few minutes.",
    ),
    Issue(
        "export-empty",
        "The export I made on {weekday} is an empty file.",
        "The date filter was set to a day without data. Please choose All time and run the export again.",
    ),
    Issue(
        "export-schedule",
        "Can I get the sales report every {weekday} without asking for it?",
        "Yes. Open the report, click Schedule and pick {weekday}; it will arrive by email at 7 am.",
    ),
    Issue(
        "plan-cancel",
        "Please cancel my {plan} plan before the next renewal.",
        "Your {plan} plan is cancelled and will not renew. You keep access until the end of the paid period.",
    ),
    Issue(
        "plan-yearly",
        "Can I move from the {plan} plan to a yearly plan?",
        "Yes. Open Billing, choose Change plan and pick Yearly. The unused part of your {plan} plan is credited.",
    ),
    Issue(
        "plan-nonprofit",
        "We are a small charity with {seats} people. Is there a discount?",
        "Charities get half price on every plan. Please reply with your registration number and we will apply it.",
    ),
    Issue(
        "plan-pause",
        "We close for the summer. Can we pause the {plan} plan until {month}?",
        "We have paused your {plan} plan until {month}. Your data stays safe and nothing is charged meanwhile.",
    ),
    Issue(
        "app-crash-reports",
        "The mobile app crashes when I open reports.",
        "Please update the app to version {version}, which fixes this crash. If it still happens, reply with a screenshot.",
    ),
    Issue(
        "app-slow",
        "The app has been very slow since version {version}.",
        "Version {version} rebuilds its search index once. Please leave the app open on wifi for ten minutes.",
    ),
    Issue(
        "app-no-push",
        "I no longer get notifications on my phone.",
        "Please open Settings, Notifications in the app and switch Push off and on again. That renews the permission.",
    ),
    Issue(
        "app-offline",
        "My changes from {weekday} are gone, I was offline on a train.",
        "Your {weekday} changes are kept in Drafts on that phone. Open Drafts and tap Upload to restore them.",
    ),
    Issue(
        "invoice-vat",
        "I need an invoice for {month} with our VAT number.",
        "Please reply with your VAT number and we will send the corrected {month} invoice the same day.",
    ),
    Issue(
        "invoice-missing",
        "Our accountant cannot find the invoice for {month}.",
        "We have sent the {month} invoice to your billing address again. All invoices are also under Billing, History.",
    ),
    Issue(
        "invoice-company-name",
        "The invoice for {month} still shows our old company name.",
        "We have corrected the name and sent you a new {month} invoice. Later ones carry the new name too.",
    ),
    Issue(
        "team-dashboard",
        "Our team of {seats} can't see the shared dashboard.",
        "Please ask the dashboard owner to click Share and add your team of {seats}. Access works at once.",
    ),
    Issue(
        "team-remove-member",
        "A colleague left us on {weekday}. How do I remove the account?",
        "Open Team, click the name and choose Remove. The seat becomes free and the files move to you.",
    ),
    Issue(
        "team-more-seats",
        "We need {seats} more seats on the {plan} plan.",
        "We have added {seats} seats to your {plan} plan. You can invite people under Team right now.",
    ),
    Issue(
        "delivery-late",
        "Delivery for order #{order} is five days late.",
        "We are sorry that order #{order} is late. It left our warehouse today and arrives within two days.",
    ),
    Issue(
        "delivery-not-home",
        "The courier came while I was out. Where is order #{order} now?",
        "Order #{order} waits at your nearest pick-up point for seven days. Please bring the code from the courier's text.",
    ),
    Issue(
        "delivery-abroad",
        "Can you deliver order #{order} to Norway instead?",
        "Yes, we can send order #{order} to Norway for 9 euros more. Please reply yes and we will change it.",
    ),
    Issue(
        "security-two-factor",
        "How do I turn on two-factor login?",
        "Open Settings, choose Security and switch on Two-factor login. Scan the code with your phone app.",
    ),
    Issue(
        "security-phishing",
        "I got an email that asks for my Northwind password. Is it from you?",
        "That email is not from us, so please delete it. If you typed your password, change it now.",
    ),
    Issue(
        "api-429",
        "The API returns error 429 since this morning.",
        "Error 429 means the rate limit was reached. We have raised your limit; please retry now.",
    ),
    Issue(
        "api-key-lost",
        "We lost our API key when {seats} laptops were replaced.",
        "Keys are shown only once, so we cannot read yours. Please make a new one under Settings, API.",
    ),
    Issue(
        "api-webhook",
        "Our webhook stopped receiving events on {weekday}.",
        "Your address returned errors and was switched off on {weekday}. Please mend it and click Resume under Webhooks.",
    ),
)

HELD_OUT: tuple[Issue, ...] = (
    Issue(
        "billing-trial-charged",
        "My free trial was charged in {month} although I stopped it.",
        "We have returned the {month} trial charge in full. Your account is closed and nothing more will be taken.",
    ),
    Issue(
        "billing-coupon",
        "The coupon for the {plan} plan does not work at checkout.",
        "That coupon ended last week, but we have applied its discount for you. Please reload the checkout page.",
    ),
    Issue(
        "order-gift-wrap",
        "Can you wrap order #{order} as a gift?",
        "Order #{order} will be wrapped as a gift for free. The price will not be printed on the slip.",
    ),
    Issue(
        "order-return",
        "How can I return order #{order}? It does not fit my desk.",
        "You can return order #{order} within 30 days. Please print the label under Orders and drop the box at any post office.",
    ),
    Issue(
        "login-changed-email",
        "I lost access to my old email address and cannot sign in.",
        "We can move your account to a new address. Please reply with a photo of your last invoice as proof.",
    ),
    Issue(
        "export-pdf",
        "Is there a way to save a report as PDF? I need it on {weekday}.",
        "Yes, open the report, click Print and choose Save as PDF. Charts are kept at full size.",
    ),
    Issue(
        "plan-downgrade",
        "I want to go down from the {plan} plan to the free one.",
        "Your {plan} plan changes to Free when the paid month ends. Projects above the limit become read-only.",
    ),
    Issue(
        "app-dark-mode",
        "Does the app have a dark mode?",
        "Dark mode came with version {version}. Switch it on under Settings, Appearance.",
    ),
    Issue(
        "app-tablet",
        "The app does not install on my tablet.",
        "The app needs at least Android 11 or iPadOS 16. On older tablets please use the website instead.",
    ),
    Issue(
        "invoice-purchase-order",
        "Please put our purchase order {order} on the {month} invoice.",
        "We have added purchase order {order} and sent the {month} invoice again. It is used for later invoices too.",
    ),
    Issue(
        "team-transfer-owner",
        "Our admin left on {weekday}. How can I become the owner of the workspace?",
        "We have written to your former admin to approve the change. Without an answer in two days we make you owner.",
    ),
    Issue(
        "delivery-lost",
        "The tracking of order #{order} says delivered but nothing is here.",
        "We have opened a search for order #{order} with the courier. If it is not found by {weekday}, we send a new one.",
    ),
    Issue(
        "security-login-alert",
        "I got an alert about a login from another country on {weekday}.",
        "We have signed out every device to be safe. Please set a new password and check your recovery address.",
    ),
    Issue(
        "api-timeouts",
        "Our calls to the API time out for large uploads of {seats} GB.",
        "Uploads above 5 GB must be sent in parts. Please use the multipart call described in the API guide.",
    ),
)

_FIRST_NAMES = tuple(
    """
    Maria John Aisha Peter Chen Olga Diego Fatima Liam Emma Noah Sofia Raj Yuki Lars Ana Omar Grace Hugo Nina Paul Ivy Karl Zoe Tom Leila
    Marco Elena Sam Priya
    """.split()
)
_LAST_NAMES = tuple(
    "Lopez Smith Khan Novak Wei Petrova Garcia Ali Brown Jones Berg Rossi Patel Tanaka Olsen Costa Haddad Lee Martin Kaya".split()
)
_MONTHS = ("January", "March", "May", "July", "October", "November")
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


def iterate_cases(split: Split, seed: int) -> Iterator[Case]:
    """Endless cases of one split: every issue once, in shuffled order, then again with other names and numbers. Same
    seed, same cases."""
    random = Random(f"{split}:{seed}")
    issues = list(TRAIN if split == "train" else HELD_OUT)
    while True:
        random.shuffle(issues)
        for issue in issues:
            first_name = random.choice(_FIRST_NAMES)
            slots = _slots(random)
            yield Case(
                issue=issue.name,
                split=split,
                first_name=first_name,
                full_name=f"{first_name} {random.choice(_LAST_NAMES)}",
                email=issue.email.format(**slots),
                answer=issue.answer.format(**slots),
            )


def week(seed: int, train: int, held_out: int) -> list[Case]:
    """A shuffled week of mail with `train` cases of the training issues and `held_out` of the others."""
    mail = [*islice(iterate_cases("train", seed), train), *islice(iterate_cases("held_out", seed), held_out)]
    Random(f"week:{seed}").shuffle(mail)
    return mail


def _slots(random: Random) -> dict[str, str]:
    return {
        "month": random.choice(_MONTHS),
        "weekday": random.choice(_WEEKDAYS),
        "order": str(random.randint(10000, 99999)),
        "plan": random.choice(("Basic", "Pro", "Team")),
        "version": f"{random.randint(3, 6)}.{random.randint(0, 9)}",
        "seats": str(random.randint(3, 40)),
    }
