import type { ButtonHTMLAttributes, ReactNode } from "react";
import { Link } from "wouter";
import { Icon, type IconName } from "./icons";

type Kind = "plain" | "primary" | "danger" | "ghost";

interface ButtonProps extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "children"> {
  kind?: Kind;
  icon?: IconName;
  /** Work is under way: the button cannot be pressed again until it is done. */
  busy?: boolean;
  children?: ReactNode;
}

export function Button({ kind = "plain", icon, busy = false, children, disabled, ...rest }: ButtonProps) {
  return (
    <button type="button" className="button" data-kind={kind} disabled={disabled || busy} aria-busy={busy} {...rest}>
      {busy ? <span className="spinner" /> : icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

/** A button that is only an icon; `label` is what it is called. */
export function IconButton({
  label,
  icon,
  ...rest
}: { label: string; icon: IconName } & Omit<ButtonProps, "children">) {
  return <Button kind="ghost" icon={icon} aria-label={label} title={label} data-icon="" {...rest} />;
}

/** A link to another page of the portal that looks like a button. */
export function ButtonLink(props: { to: string; kind?: Kind; icon?: IconName; children: ReactNode }) {
  return (
    <Link href={props.to} className="button" data-kind={props.kind ?? "plain"}>
      {props.icon && <Icon name={props.icon} />}
      {props.children}
    </Link>
  );
}
