"""
The subject of a request: the customer that the application has authenticated, the web SDK's visitor, or nobody.

All integrations for web frameworks use it. What is specific to a framework is in the module of the framework.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from inspect import isawaitable, iscoroutine
from typing import Any
from uuid import UUID

from attrs import field, frozen

from exponea_async._internal import validation as checks
from exponea_async._internal.user_code import calling
from exponea_async._internal.validation import short_repr
from exponea_async.client import Exponea
from exponea_async.devices.ids import COOKIE
from exponea_async.errors import ConfigurationError, InvalidEventError
from exponea_async.integrations._headers import RequestProperties, Scope, visitor_cookie
from exponea_async.models import Customer, Receipt
from exponea_async.subjects import Binding, CustomerTracker, Subject, UnknownCustomer

#: The ids of a customer: a mapping of ids by type, or the id of the type ``registered``. None where nobody is known.
Ids = Mapping[str, str] | str | UUID | None
#: A function of the application that is called with the request: with its scope, or as the framework has it.
CustomerFunction = Callable[[Any], Ids | Awaitable[Ids]]
ConsentFunction = Callable[[Any], bool | Awaitable[bool]]

#: The type of an id that is given as a string alone.
REGISTERED = "registered"
#: Where the subjects of a request are in its scope, by client.
KEY = "exponea_async"
_NOT_ASKED = object()

_function = checks.optional(
    checks.check((lambda value: not callable(value), "expected a function, got {value}"), hint="Use a function.")
)


@frozen
class RequestRules:
    """
    How the subject of a request is found.

    Args:
        exponea: The client.
        customer: Returns the ids of the customer that the application has authenticated, or None.
        visitor: Whether a request without a customer is about the visitor that the web SDK's cookie names.
        consent: Returns whether the visitor may be tracked; None where everyone may.
        properties: What the events of a request carry.

    Attributes:
        is_async: Whether a function of the application must be awaited.

    Raises:
        ConfigurationError: One of them is invalid.
    """

    exponea: Exponea = field(validator=checks.instance_of(Exponea, "Use a client: Exponea(configuration)."))
    customer: CustomerFunction | None = field(default=None, kw_only=True, validator=_function)
    visitor: bool = field(default=True, kw_only=True, validator=checks.boolean)
    consent: ConsentFunction | None = field(default=None, kw_only=True, validator=_function)
    properties: RequestProperties = field(
        factory=RequestProperties,
        kw_only=True,
        validator=checks.instance_of(RequestProperties, "Use RequestProperties(ip=0, user_agent=True)."),
    )
    is_async: bool = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Found out here, and not for each request.
        object.__setattr__(self, "is_async", checks.is_async(self.customer) or checks.is_async(self.consent))

    async def subject_of(self, scope: MutableMapping[str, Any], request: Any = None) -> "RequestSubject":
        """
        Return the subject of a request, and store it in the scope.

        Args:
            scope: The scope of the connection, or one that has the headers, the path and the query of the request.
            request: What the functions of the application are called with; by default the scope.
        """
        subject = RequestSubject(self, scope, scope if request is None else request)
        # The scope is that of the application, and not a copy: middleware within this one adds the user to it, and
        # middleware outside reads the route there. A new mapping, since a copied scope has the same one.
        scope[KEY] = {**scope.get(KEY, {}), self.exponea: subject}
        if self.is_async:
            await subject.prepare()
        return subject


class RequestSubject:
    """
    The subject of one request or connection, which may become known while it is handled.

    It is asked for whenever something is tracked. Once the customer is known, that is the subject until the end; before
    that the application is asked again each time. So it does not matter whether the middleware that authenticates is
    inside or outside of that which binds.

    Args:
        rules: How it is found.
        scope: The scope of the connection.
        request: What the functions of the application are called with.
    """

    __slots__ = ("_consent", "_customer", "_ids", "_path", "_properties", "_request", "_rules", "_scope", "_visitor")

    def __init__(self, rules: RequestRules, scope: Scope, request: Any) -> None:
        self._rules = rules
        self._scope = scope
        # Frameworks change it, for mounted applications.
        self._path = scope.get("path", "")
        self._request = request
        self._customer: CustomerTracker | None = None
        self._visitor: Subject | None = None
        self._properties: dict[str, str] | None = None
        # What the application's async functions have returned, or the error for what they have raised.
        self._ids: Any = _NOT_ASKED
        self._consent: Any = _NOT_ASKED

    def bind(self) -> AbstractContextManager[None]:
        """Make this the current subject, until the end of the ``with`` block."""
        return Binding(self._rules.exponea, self)

    async def prepare(self) -> None:
        """Await the application's async functions."""
        consent, customer = self._rules.consent, self._rules.customer
        if consent is not None and checks.is_async(consent):
            self._consent = await _awaited("consent", consent, self._request)
        if customer is not None and checks.is_async(customer):
            self._ids = await _awaited("customer", customer, self._request)

    # As what is bound

    def subject(self) -> Subject:
        """Return the subject as it is known now."""
        try:
            return self._find()
        except InvalidEventError as error:
            return self._unknown(error)

    def properties(self) -> Mapping[str, Any]:
        """Return what the events of the request carry."""
        if self._properties is None:
            self._properties = self._rules.properties.read({**self._scope, "path": self._path})
        return self._properties

    def _find(self) -> Subject:
        if not self._has_consent():
            return self._rules.exponea.nobody()
        return self._find_customer() or self._find_visitor()

    def _has_consent(self) -> bool:
        consent = self._rules.consent
        if consent is None:
            return True
        given = _called("consent", consent, self._request) if self._consent is _NOT_ASKED else _result(self._consent)
        if not isinstance(given, bool):
            trouble = f"expected a bool from the function, got {short_repr(given)}"
            raise InvalidEventError("consent", trouble, "Let it return True or False.")
        return given

    def _find_customer(self) -> CustomerTracker | None:
        customer = self._rules.customer
        if self._customer is None and customer is not None:
            ids = _called("customer", customer, self._request) if self._ids is _NOT_ASKED else _result(self._ids)
            self._customer = self._tracker(ids)
        return self._customer

    def _tracker(self, ids: Ids) -> CustomerTracker | None:
        if ids is None or (isinstance(ids, Mapping) and not ids):
            return None
        if isinstance(ids, str | UUID):
            ids = {REGISTERED: str(ids)}
        if not isinstance(ids, Mapping):
            # Not the value, which may be personal data.
            trouble = f"expected ids, a string or None, got {type(ids).__name__}"
            raise InvalidEventError("customer", trouble, "Use ids such as {'registered': 'jane@example.com'}.")
        return self._rules.exponea.for_customer(ids)

    def _find_visitor(self) -> Subject:
        if self._visitor is None:
            cookie, exponea = self.cookie(), self._rules.exponea
            self._visitor = exponea.nobody() if cookie is None else exponea.for_customer({COOKIE: cookie})
        return self._visitor

    def _unknown(self, error: InvalidEventError) -> UnknownCustomer:
        return UnknownCustomer(error, self._rules.exponea._home)  # noqa: SLF001 - a class of the package

    # What the application does with it

    def cookie(self) -> str | None:
        """Return the cookie of the web SDK's visitor."""
        if not self._rules.visitor:
            return None
        return visitor_cookie(self._scope, self._rules.exponea.configuration.project_token)

    def set_customer(self, ids: Ids) -> None:
        """Set the customer, who is the subject from now on, as `bind_customer` describes it."""
        try:
            self._customer = self._tracker(ids) or self._customer
        except InvalidEventError as error:
            if self._rules.exponea.configuration.on_invalid == "raise":
                raise
            self._customer = self._unknown(error)

    async def identify(self, properties: Mapping[str, Any]) -> Receipt:
        """Record that the customer and the visitor are the same person, as `identify_visitor` describes it."""
        return await self.joined().identify_customer(Customer({}, properties))

    def joined(self) -> Subject:
        """Return the customer and the visitor as one subject."""
        try:
            return self._find_joined()
        except InvalidEventError as error:
            return self._unknown(error)

    def _find_joined(self) -> Subject:
        """Return the customer with the cookie of the visitor among the ids."""
        exponea = self._rules.exponea
        if not self._has_consent():
            return exponea.nobody()
        customer, cookie = self._find_customer(), self.cookie()
        if customer is None or not customer.ids.keys() - {COOKIE}:
            trouble = "expected a customer whom the application has authenticated, got a visitor"
            raise InvalidEventError("customer", trouble, "Call identify_visitor() in authenticated requests only.")
        return customer if cookie is None else exponea.for_customer({COOKIE: cookie, **customer.ids})


def find_subject(exponea: Exponea, scope: Scope) -> RequestSubject:
    """
    Return the subject of a request that a middleware has bound.

    Raises:
        ConfigurationError: The request did not pass a middleware with this client.
    """
    subjects = scope.get(KEY)
    found = subjects.get(exponea) if isinstance(subjects, Mapping) else None
    if not isinstance(found, RequestSubject):
        trouble = "the request did not pass the middleware with this client"
        raise ConfigurationError("scope", trouble, "Add ExponeaMiddleware with the same client to the application.")
    return found


def _called(name: str, function: Callable[[Any], Any], request: Any) -> Any:
    try:
        with calling(f"the function {name}", function):
            returned = function(request)
    except Exception as error:  # a function of the application may raise anything
        raise _failed(name, error) from error
    if isawaitable(returned):
        if iscoroutine(returned):
            returned.close()
        trouble = "expected a value from the function, got something to await"
        raise InvalidEventError(name, trouble, "Declare the function with 'async def'.")
    return returned


async def _awaited(name: str, function: Callable[[Any], Any], request: Any) -> Any:
    """Return what an async function returns, or the error for what it raises."""
    try:
        with calling(f"the function {name}", function, is_async=True):
            return await function(request)
    except Exception as error:  # noqa: BLE001 - a function of the application may raise anything
        failed = _failed(name, error)
        failed.__cause__ = error
        return failed


def _result(outcome: Any) -> Any:
    if isinstance(outcome, InvalidEventError):
        raise outcome.with_traceback(None)
    return outcome


def _failed(name: str, error: Exception) -> InvalidEventError:
    trouble = f"can't be found out: the function raised {type(error).__name__}"
    return InvalidEventError(name, trouble, "Correct the function, or return None where nobody is known.")
