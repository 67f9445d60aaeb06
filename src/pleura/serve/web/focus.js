// Where the focus goes when what has it is disabled, hidden or gone: a browser would put it nowhere, and a reader with a
// keyboard or a screen reader would begin again at the top of the page.
//
// Exports: keepFocus.

const canHold = element => element?.isConnected && !element.disabled && element.getClientRects().length > 0;

/** Change the page, and then, if what had the focus cannot have it any more, focus the first of others() that can. */
export function keepFocus(change, others) {
  const held = document.activeElement;
  change();
  if (!held || held === document.body || canHold(held)) return;
  others(held).find(canHold)?.focus();
}
