import { createContext, type ReactNode, useCallback, useContext, useMemo, useRef, useState } from "react";
import { useText } from "../i18n";
import { Button, IconButton } from "./button";

interface Toast {
  message: string;
  /** A way back, such as Undo. */
  action?: { label: string; run: () => void };
  /** How long it stays; those with an action should stay as long as the action is possible. */
  seconds?: number;
}

const Context = createContext<(toast: Toast) => void>(() => {});

/** Tells briefly that something was done. What failed is told where it was asked, and stays. */
export const useToast = () => useContext(Context);

export function ToastProvider({ children }: { children: ReactNode }) {
  const t = useText();
  const [shown, setShown] = useState<(Toast & { id: number })[]>([]);
  const next = useRef(1);
  const drop = useCallback((id: number) => setShown((all) => all.filter((toast) => toast.id !== id)), []);
  const show = useCallback(
    (toast: Toast) => {
      const id = next.current++;
      setShown((all) => [...all, { ...toast, id }]);
      setTimeout(() => drop(id), (toast.seconds ?? 6) * 1000);
    },
    [drop],
  );
  const value = useMemo(() => show, [show]);
  return (
    <Context value={value}>
      {children}
      <div className="toasts" role="status" aria-live="polite">
        {shown.map(({ id, message, action }) => (
          <div className="toast" key={id}>
            <span>{message}</span>
            <span className="row">
              {action && (
                <Button
                  onClick={() => {
                    action.run();
                    drop(id);
                  }}
                >
                  {action.label}
                </Button>
              )}
              <IconButton icon="close" label={t("common.dismiss")} onClick={() => drop(id)} />
            </span>
          </div>
        ))}
      </div>
    </Context>
  );
}
