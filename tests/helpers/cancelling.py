"""
An application that cancels tasks, at any time.
"""

import asyncio

ALL = "all tasks"


def cancel_others(text: str = "exponea_async", *, keep: "set[asyncio.Task[object]] | None" = None) -> None:
    """Cancel all tasks but the present one, or those with a text in their names: not those of the sandbox."""
    for task in asyncio.all_tasks() - {asyncio.current_task()} - (keep or set()):
        if text is ALL or text in task.get_name():
            task.cancel()


async def pause(steps: int) -> None:
    """Let some turns of the event loop pass; later ones with time for other threads."""
    for step in range(steps):
        await asyncio.sleep(0 if step < 10 else 0.001)
