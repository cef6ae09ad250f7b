"""
The way of an event, from a call to the verdict of the platform.

* `recorder` encodes an event and writes it to the storage, and `receipts` issues the receipt.
* `uploader` leases records from the storage and splits them into batches.
* `sender` sends a batch, and reads the result of each record in it.
* `acknowledger` stores the verdicts, and then resolves receipts and notifies hooks.

`flush` decides when this happens, `runtime` connects the parts, and `api` makes all other requests.
"""
