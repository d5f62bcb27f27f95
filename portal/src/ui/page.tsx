import { type ReactNode, useEffect } from "react";

interface PageProps {
  title: string;
  text?: ReactNode;
  actions?: ReactNode;
  /** Take the whole window, for a page whose parts scroll by themselves. */
  fill?: boolean;
  children: ReactNode;
}

/** A page's head and body; names the browser's tab. */
export function Page({ title, text, actions, fill = false, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · stillroom`;
  }, [title]);
  return (
    <div className="page" data-fill={fill || undefined}>
      <header className="spread">
        <div>
          <h1>{title}</h1>
          {text && <p className="page-text">{text}</p>}
        </div>
        {actions && <div className="row">{actions}</div>}
      </header>
      {children}
    </div>
  );
}
