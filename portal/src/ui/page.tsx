import { type ReactNode, useEffect } from "react";

interface PageProps {
  title: string;
  text?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

/** A page's head and body; names the browser's tab. */
export function Page({ title, text, actions, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · stillroom`;
  }, [title]);
  return (
    <div className="page">
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
