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
}

/** A modal dialog: the browser's own, so that focus stays in it, Escape closes it, and focus returns. */
export function Dialog({ title, onClose, children, actions }: DialogProps) {
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
        onClose();
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
  onConfirm: () => void;
  onClose: () => void;
}

export function Confirm({ title, text, deed, busy = false, error, danger = true, onConfirm, onClose }: ConfirmProps) {
  const t = useText();
  return (
    <Dialog
      title={title}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose} autoFocus>
            {t("common.cancel")}
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
