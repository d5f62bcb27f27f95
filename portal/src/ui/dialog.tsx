import { type ReactNode, useId, useLayoutEffect, useRef } from "react";
import { useText } from "../i18n";
import { Button } from "./button";
import { ErrorNote } from "./told";

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ReactNode;
  /** Buttons at the foot; without any, there is one that closes. */
  actions?: ReactNode;
  /** Whether nothing but its buttons closes it: what it shows is shown once. */
  stays?: boolean;
}

/** A modal dialog: the browser's own, so that focus stays in it, Escape closes it, and focus returns. */
export function Dialog({ title, onClose, children, actions, stays = false }: DialogProps) {
  const t = useText();
  const dialog = useRef<HTMLDialogElement>(null);
  const name = useId();
  // Closed while it is still in the page: only then does the browser give the focus back.
  useLayoutEffect(() => {
    const opened = dialog.current;
    opened?.showModal();
    return () => opened?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      className="dialog"
      aria-labelledby={name}
      onCancel={(event) => {
        event.preventDefault();
        if (!stays) onClose();
      }}
      onClose={() => {
        // A second Escape closes it without asking.
        if (dialog.current?.open) return;
        if (stays) dialog.current?.showModal();
        else onClose();
      }}
    >
      <div className="stack">
        <h2 id={name}>{title}</h2>
        {children}
      </div>
      <div className="dialog-actions">{actions ?? <Button onClick={onClose}>{t("common.close")}</Button>}</div>
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  text: ReactNode;
  /** What the button says: the deed, such as "Delete 12 completions". */
  deed: string;
  busy?: boolean;
  /** Why it could not be done. */
  error?: unknown;
  danger?: boolean;
  /** What the button says that does nothing, where "Cancel" would be misread. */
  keep?: string;
  onConfirm: () => void;
  onClose: () => void;
}

export function Confirm(props: ConfirmProps) {
  const { title, text, deed, busy = false, error, danger = true, keep, onConfirm, onClose } = props;
  const t = useText();
  return (
    <Dialog
      title={title}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose} autoFocus>
            {keep ?? t("common.cancel")}
          </Button>
          <Button kind={danger ? "danger" : "primary"} busy={busy} onClick={onConfirm}>
            {deed}
          </Button>
        </>
      }
    >
      <div>{text}</div>
      {error != null && <ErrorNote error={error} />}
    </Dialog>
  );
}
